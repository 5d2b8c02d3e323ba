"""Checks of a page in a browser: width, words that are broken, and contrast of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

_BROKEN_WORDS = r"""selector => {
    const broken = [];
    for (const cell of document.querySelectorAll(selector)) {
        const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const node = walker.currentNode;
            for (const match of node.data.matchAll(/[^\s\u00ad-]+/g)) {
                if (node.data[match.index - 1] === "\u00ad") continue; // the hyphen before it has a box of its own
                const range = document.createRange();
                range.setStart(node, match.index);
                range.setEnd(node, match.index + match[0].length);
                const rects = range.getClientRects();
                const own = cell.getBoundingClientRect();
                if (rects.length > 1 || (rects.length && rects[0].width > own.width + 0.5)) broken.push(match[0]);
            }
        }
    }
    return broken;
}"""
# WCAG 2.2, contrast ratio (definition)
_LOWEST_CONTRAST = r"""() => {
    const parse = text => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const linear = v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const [x, y, z] = [r, g, b].map(v => linear(v / 255));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const background = element => {
        for (let each = element; each; each = each.parentElement) {
            const color = parse(getComputedStyle(each).backgroundColor);
            if (color[3] === undefined || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    let lowest = [21, ""];
    for (const element of document.body.querySelectorAll("*")) {
        const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join("");
        if (!text || !element.getClientRects().length || element.disabled) continue;
        const colors = [parse(getComputedStyle(element).color), background(element)];
        const [high, low] = colors.map(light).sort((a, b) => b - a);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < lowest[0]) lowest = [ratio, text];
    }
    return lowest;
}"""


def page_width(page: Page) -> int:
    """Returns the width that the page needs, in pixels; wider than the window, it scrolls sideways."""
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width


def broken_words(page: Page, selector: str = "td, th, dt, caption, h1, h2") -> list[str]:
    """Returns the words that are broken within themselves, or wider than their element."""
    words: list[str] = page.evaluate(_BROKEN_WORDS, selector)
    return words


def lowest_contrast(page: Page) -> tuple[float, str]:
    """Returns the lowest contrast ratio of a visible text with its background, and that text."""
    ratio, text = page.evaluate(_LOWEST_CONTRAST)
    return ratio, text
