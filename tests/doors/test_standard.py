"""LangChain's own tests of chat models, on a tiny model, and on the packaged one where words matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from sostenuto.runtime.doors.langgraph import ChatSostenuto
from sostenuto.runtime.host import Host

from ..babbler import build

ITSELF = {
    "test_agent_loop",
    "test_bind_runnables_as_tools",
    "test_tool_calling",
    "test_tool_calling_async",
    "test_unicode_tool_call_integration",
}
"""What these want to hear no grammar says, only a model that has read the question."""


@pytest.fixture(scope="module")
def terse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host whose model comes to an end, in whatever form it is held to."""
    folder = build(tmp_path_factory.mktemp("model") / "terse", terse=True)
    with Host.open(str(folder), pool_tokens=8192, dtype="float32") as opened:
        yield opened


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatSostenuto

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _served(self, request: pytest.FixtureRequest) -> None:
        self.host: Host = request.getfixturevalue("real_host" if request.function.__name__ in ITSELF else "terse")

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatSostenuto

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"host": self.host, "max_tokens": 160, "frequency_penalty": 0.5}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True


@pytest.mark.slow
class TestThePackagedModel(TestIntegration):
    @pytest.fixture(autouse=True)
    def _served(self, real_host: Host) -> None:
        self.host = real_host
