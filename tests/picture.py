"""The README's picture: parts of a finished report as a browser shows them.

python -m tests.picture results/demo/report.html docs/report.png
python -m tests.picture results/demo/report.html phone.png --whole --dark --width 390

Of the two pages it wants `report.html`, which has throughput too: of an own build, since a copied one has no speed.
"""

import argparse
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, SCALE, COLOURS = 1280, 0.75, 128
"""Window in CSS pixels, pixels of the picture to one of them, colours of its palette: flat areas need no more."""
# Sections by id; of them the first training and the first map of a merge, no tables.
SHORTEN = """() => {
  for (const s of document.querySelectorAll('main > section, body > section'))
    if (!['scorecard', 'training', 'merge', 'lineage'].includes(s.id)) s.remove();
  const behind = (e) => { while (e && e.nextElementSibling) e.nextElementSibling.remove(); };
  const second = document.querySelectorAll('#training h3')[1];
  if (second) { behind(second); second.remove(); }
  document.querySelectorAll('details, #scorecard table, #merge table, #lineage table, footer').forEach(
    e => (e.closest('.card') || e).remove());
  const maps = document.querySelectorAll('#merge figure');
  maps.forEach((e, i) => { if (i) e.remove(); });
}"""


def main(arguments: Sequence[str]) -> int:
    """Draw the picture; return 1 where the page or a browser is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.picture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="results/<recipe>/report.html")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the window (default: %(default)s)")
    parser.add_argument("--dark", action="store_true", help="dark colours")
    parser.add_argument("--whole", action="store_true", help="all of the page, to look at")
    args = parser.parse_args(arguments)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None or not args.page.is_file():
        missing = f"{args.page}: no such page; make demo" if browser else "no chromium on this machine"
        print(f"picture: {missing}", file=sys.stderr)
        return 1
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-quic"])
        scheme = "dark" if args.dark else "light"
        page = running.new_context(
            viewport={"width": args.width, "height": 860}, color_scheme=scheme, device_scale_factor=SCALE
        ).new_page()
        page.goto(args.page.absolute().as_uri())
        if not args.whole:
            page.evaluate(SHORTEN)
        shot = page.screenshot(full_page=True, animations="disabled")
        running.close()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(args.picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
