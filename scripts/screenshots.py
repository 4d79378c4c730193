"""Take the pictures of the console for README and docs: `make screenshots`.

A gateway is started with the demo tools, a browser trains with one of them, and pictures are taken amid the run.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Browser, async_playwright, expect

# As the browser tests have them.
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.e2e.harness import DEMO_ADAPTER, ROOT, served

FOLDER = ROOT / "docs" / "images"
LIMIT_BYTES = 200_000
PATIENCE_MS = 60_000
# Name -> width, height, colour scheme.
PICTURES = {"console-run": (1200, 1180, "light"), "console-dark": (1200, 1180, "dark"), "console-narrow": (360, 780, "light")}


async def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        served(Path(directory), str(DEMO_ADAPTER), "--pool-size", str(len(PICTURES))) as gateway,
    ):
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            await asyncio.gather(*(take(browser, gateway.url, name) for name in PICTURES))
            await browser.close()


async def take(browser: Browser, url: str, name: str) -> None:
    width, height, scheme = PICTURES[name]
    page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
    await page.goto(f"{url}/console#/tools/train_with_progress")
    await page.locator("#argument-epochs").fill("30")
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.get_by_test_id("count")).to_have_text("21", timeout=PATIENCE_MS)
    path = FOLDER / f"{name}.png"
    await page.screenshot(path=path)
    await page.get_by_role("button", name="Stop").click()
    if (size := path.stat().st_size) > LIMIT_BYTES:
        sys.exit(f"{path} has {size} bytes, the limit is {LIMIT_BYTES}")
    print(f"{path.relative_to(ROOT)}: {size} bytes")


if __name__ == "__main__":
    asyncio.run(main())
