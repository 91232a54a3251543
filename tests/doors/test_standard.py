"""LangChain's own tests of chat models, with the packaged 135M model answering."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from sostenuto.runtime.doors.langgraph import ChatSostenuto
from sostenuto.runtime.host import Host


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatSostenuto

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _served(self, real_host: Host) -> None:
        self.host = real_host

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
