"""One frame that tells the story of an episode: the panels of its series.

Drawn with pygame, of the `render` extra, imported at the first frame.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.analysis.figures import GRID, INK, MUTED, PAPER
from hmgym.envs.panels import FloatArray, Line, Panel, Series, log_ticks, mixed, rgb

FRAME_SIZE = (960, 640)
"""Width and height of a frame in pixels."""

RENDER_MODES = ("rgb_array", "human")
RENDER_FPS = 12
_MARGIN, _TOP = 24, 48
_LEAST_RANGE = 0.05  # of an axis, so that rounding does not fill it
_LEAST_PERIODS = 12  # of the axis of an episode that has just begun

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


def check_render_mode(render_mode: str | None) -> str | None:
    """Return `render_mode`, or raise a ValueError that lists the modes there are."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"`render_mode` must be None or one of {list(RENDER_MODES)}, got {render_mode!r}")
    return render_mode


def _import_pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise ImportError('rendering needs pygame: pip install "hmgym[render]"') from error
    return pygame


class Viewer:
    """Draws frames, into an array or into a window.

    Args:
        render_mode: "rgb_array" or "human".
        fps: frames a second at which a window is refreshed.
    """

    def __init__(self, render_mode: str, fps: int) -> None:
        self.render_mode = render_mode
        self._fps = fps
        self._window: Any = None
        self._clock: Any = None
        self._fonts: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_window": None, "_clock": None, "_fonts": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Viewer:
        return Viewer(self.render_mode, self._fps)  # a copy opens its own window

    def draw(self, series: Series, title: str) -> npt.NDArray[np.uint8] | None:
        """Draw the episode so far; an array (height, width, 3) for "rgb_array", None for "human"."""
        pygame = _import_pygame()
        if not pygame.font.get_init():
            pygame.font.init()
            self._fonts.clear()
        surface = pygame.Surface(FRAME_SIZE)
        self._compose(pygame, surface, series, title)
        if self.render_mode == "human":
            self._show(pygame, surface)
            return None
        return np.transpose(pygame.surfarray.array3d(surface), (1, 0, 2)).astype(np.uint8, order="C")

    def close(self) -> None:
        """Close the window, if one is open."""
        if self._window is not None:
            pygame = _import_pygame()
            pygame.display.quit()
            self._window = self._clock = None

    def _show(self, pygame: Any, surface: Any) -> None:
        if self._window is None:
            try:
                pygame.display.init()
                self._window = pygame.display.set_mode(FRAME_SIZE)
            except pygame.error:  # no screen: the loop still runs, drawn to nowhere
                os.environ["SDL_VIDEODRIVER"] = "dummy"
                pygame.display.quit()
                pygame.display.init()
                self._window = pygame.display.set_mode(FRAME_SIZE)
            pygame.display.set_caption("hmgym")
            self._clock = pygame.time.Clock()
        self._window.blit(surface, (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    def _text(
        self, pygame: Any, surface: Any, text: str, at: tuple[int, int], size: int, colour: str, right: bool = False
    ) -> int:
        if size not in self._fonts:
            self._fonts[size] = pygame.font.Font(None, size)
        image = self._fonts[size].render(text, True, rgb(colour))
        x = at[0] - image.get_width() if right else at[0]
        surface.blit(image, (x, at[1]))
        return int(image.get_width())

    def _compose(self, pygame: Any, surface: Any, series: Series, title: str) -> None:
        surface.fill(rgb(PAPER))
        self._text(pygame, surface, title, (_MARGIN, 14), 26, INK)
        panels = series.panels()
        for panel, box in zip(panels, layout(panels), strict=True):
            self._panel(pygame, surface, box, panel)

    def _panel(self, pygame: Any, surface: Any, box: Box, panel: Panel) -> None:
        x, y, width, tall = box
        self._text(pygame, surface, panel.title + (", log" if panel.log else ""), (x, y), 20, INK)
        left, right, top, bottom = x + 46, x + width - 6, y + 24, y + tall - 4
        lines = [(np.log(line.values) if panel.log else line.values, line) for line in panel.lines]
        values = np.concatenate([line for line, _ in lines])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        low = low if panel.floor is None else min(panel.floor, low)
        high = max(high, low + _LEAST_RANGE)
        pad = 0.06 * (high - low)
        low, high = low - pad, high + pad
        for tick in log_ticks(np.exp(low), np.exp(high)) if panel.log else _ticks(low, high):
            height = np.log(tick) if panel.log else tick
            row = round(bottom - (height - low) / (high - low) * (bottom - top))
            pygame.draw.line(surface, rgb(GRID), (left, row), (right, row))
            self._text(pygame, surface, f"{tick:g}", (left - 6, row - 6), 18, MUTED, right=True)
        span = max(len(lines[0][0]) - 1, _LEAST_PERIODS)
        for heights, line in lines:
            columns = left + np.arange(len(heights)) / span * (right - left)
            self._line(
                pygame, surface, np.stack([columns, bottom - (heights - low) / (high - low) * (bottom - top)], 1), line
            )

    def _line(self, pygame: Any, surface: Any, points: FloatArray, line: Line) -> None:
        colour = rgb(mixed(line.colour, PAPER, 0.5) if line.dashed else line.colour)
        for run in _runs(points):
            if line.points or len(run) == 1:
                for point in run:
                    pygame.draw.circle(surface, colour, point, 3)
            elif line.dashed:
                for begin, end in _dashes(run):
                    pygame.draw.line(surface, colour, begin, end, 2)
            else:
                pygame.draw.lines(surface, colour, False, run, 2)


def rows_of(panels: tuple[Panel, ...]) -> list[tuple[Panel, ...]]:
    """The panels in rows of a picture: a wide one alone, others in pairs."""
    rows: list[tuple[Panel, ...]] = []
    for panel in panels:
        if not panel.wide and rows and len(rows[-1]) == 1 and not rows[-1][0].wide:
            rows[-1] = (*rows[-1], panel)
        else:
            rows.append((panel,))
    return rows


def layout(panels: tuple[Panel, ...]) -> list[Box]:
    """Where in a frame the panels stand; a row of a wide one is half as high again as the others."""
    width, height = FRAME_SIZE
    rows = rows_of(panels)
    weights = [1.5 if row[0].wide else 1.0 for row in rows]
    room = height - _TOP - _MARGIN * len(rows)
    boxes: list[Box] = []
    top = _TOP
    for row, weight in zip(rows, weights, strict=True):
        high = int(room * weight / sum(weights))
        wide = (width - _MARGIN * (len(row) + 1)) // len(row)
        boxes += [(_MARGIN + at * (wide + _MARGIN), top, wide, high) for at in range(len(row))]
        top += high + _MARGIN
    return boxes


def _ticks(low: float, high: float, count: int = 4) -> FloatArray:
    raw = (high - low) / count
    scale = 10.0 ** np.floor(np.log10(raw))
    step = scale * min((1.0, 2.0, 2.5, 5.0, 10.0), key=lambda multiple: abs(multiple * scale - raw))
    first = np.ceil(low / step)
    ticks: FloatArray = np.round(step * np.arange(first, np.floor(high / step) + 1.0), 10) + 0.0
    return ticks


def _runs(points: FloatArray) -> list[FloatArray]:
    """Points (T, 2) without those whose height is NaN, cut where these were."""
    there = np.isfinite(points[:, 1])
    cuts = np.flatnonzero(np.diff(there)) + 1
    return [run for run, kept in zip(np.split(points, cuts), there[np.r_[0, cuts]], strict=True) if kept]


def _dashes(points: FloatArray, dash: float = 6.0) -> list[tuple[FloatArray, FloatArray]]:
    """Cut a line through `points` into dashes of equal length with gaps as long."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    cuts = np.arange(0.0, length[-1], dash)
    ends = np.stack([np.interp(cuts, length, points[:, 0]), np.interp(cuts, length, points[:, 1])], axis=1)
    return [(ends[i], ends[i + 1]) for i in range(0, len(ends) - 1, 2)]
