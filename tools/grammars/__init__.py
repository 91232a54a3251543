"""Grammar engines, one file each; import the one you want."""
