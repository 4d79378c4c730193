"""The console's page as a reader has it, for the tests: opened, filled in, read; and what it may never do."""

from __future__ import annotations

import json

from playwright.async_api import ConsoleMessage, Locator, Page, Request, expect

from tests.e2e.harness import PATIENCE_S

expect.set_options(timeout=PATIENCE_S * 1000)


class Console:
    """The page, and what it may never do: break its policy, throw, or ask another host."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._watch)

    def _hear(self, message: ConsoleMessage) -> None:
        # A refused or cut request is what some tests are about, and the browser's own words for it.
        if (
            message.type in ("error", "warning")
            and "Failed to load resource" not in message.text
            and "WebSocket connection" not in message.text
        ):
            self.complaints.append(message.text)

    def _watch(self, request: Request) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws"), "data:", "blob:")):
            self.complaints.append(f"asked {request.url}")

    async def open(self, path: str) -> None:
        await self.page.goto(f"{self.url}/console#{path}")

    async def start(self, tool: str, transport: str = "SSE", options: dict[str, str] | None = None, **arguments: object) -> None:
        """Fill the form of a tool and start it."""
        await self.open(f"/tools/{tool}")
        for name, value in arguments.items():
            await self.page.locator(f"#argument-{name}").fill(str(value))
        await self.page.get_by_label(transport, exact=True).check()
        if options:
            await self.page.get_by_text("Options", exact=True).click()
            for label, value in options.items():
                await self.page.get_by_label(label).fill(value)
        await self.page.get_by_role("button", name="Start", exact=True).click()

    def figure(self, name: str) -> Locator:
        return self.page.get_by_test_id(name)

    async def state_becomes(self, state: str) -> None:
        await expect(self.figure("state")).to_have_text(state)

    async def numbers(self) -> list[int]:
        """The chunks' own numbers, as far as rows of the list are in the page."""
        texts = await self.page.locator(".row code").all_text_contents()
        return [json.loads(text)["n"] for text in texts]
