"""The plot of a run: a group of bars for each metric where less is better, each group on its own scale, as SVG."""

from __future__ import annotations

from html import escape

from benchmarks.metrics import METRICS, spell
from benchmarks.record import Record, machine

COLOURS = ("#2f6fde", "#9a6dd7", "#c4c9d4", "#e0a458")
LABEL_PX, BARS_PX, VALUE_PX = 270, 460, 90
BAR_PX, GAP_PX, HEAD_PX = 12, 14, 58


def svg(record: Record) -> str:
    """Return the plot. The longest bar of a group is the worst target; the dark line is the goal."""
    parts: list[str] = []
    top = HEAD_PX
    for metric in METRICS:
        values = [(index, name, record.median(metric.case, name, metric.figure)) for index, name in enumerate(record.targets)]
        found = [(index, name, value) for index, name, value in values if value is not None and value > 0]
        if metric.more_is_better or not metric.is_ratio_shown or len(found) < 2:
            continue
        worst = max(value for _, _, value in found)
        middle = top + BAR_PX * len(found) / 2 + 4
        parts.append(f'<text x="{LABEL_PX - 10}" y="{middle:.0f}" text-anchor="end">{escape(metric.title)}</text>')
        first = top
        for index, _, value in found:
            width = max(1.0, value / worst * BARS_PX)
            parts.append(
                f'<rect x="{LABEL_PX}" y="{top}" width="{width:.1f}" height="{BAR_PX - 2}" fill="{COLOURS[index % len(COLOURS)]}"/>'
                f'<text x="{LABEL_PX + width + 5:.1f}" y="{top + BAR_PX - 3}" class="value">{spell(value)}</text>'
            )
            top += BAR_PX
        if metric.goal is not None and metric.goal <= worst:
            x = LABEL_PX + metric.goal / worst * BARS_PX
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{first - 3}" y2="{top + 1}" stroke="#222" stroke-width="1.5"/>')
        top += GAP_PX
    width = LABEL_PX + BARS_PX + VALUE_PX
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}">',
            "<style>text{font:12px system-ui,sans-serif;fill:#222}.value{font-size:10px;fill:#555}</style>",
            f'<rect width="{width}" height="{top}" fill="#fff"/>',
            *_legend(record),
            *parts,
            "</svg>\n",
        ]
    )


def _legend(record: Record) -> list[str]:
    on = machine()
    text = (
        f"Less is better; each row has its own scale; the dark line is the goal. {record.began:%Y-%m-%d}, {on['cpu']}, {on['cores']} cores."
    )
    parts = [f'<text x="12" y="18">{escape(text)}</text>']
    x = 12
    for index, name in enumerate(record.targets):
        parts.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 17}" y="40">{escape(name)}</text>')
        x += 40 + 8 * len(name)
    return parts
