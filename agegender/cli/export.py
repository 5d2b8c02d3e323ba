"""The settings of `agegender export`: one file for ONNX Runtime, or a folder of static files for browsers."""

from __future__ import annotations

from typing import Literal

from agegender.errors import require


def export(
    out: str | None,
    weights: str = "default",
    check: str | None = None,
    precision: Literal["float32", "float16", "int8"] | None = None,
    format: Literal["onnx", "web"] = "onnx",
    runtime: str | None = None,
    thresholds: list[int] | None = None,
) -> None:
    """Export a network.

    Args:
        out: Output file, or for `format="web"` a folder.
        weights: See `Predictor`.
        check: File, folder or glob of face crops to compare on; None for drawn faces.
        precision: Precision of the stored weights; None for float32, and for `format="web"` the smallest that keeps the
            predictions.
        format: `onnx`, or `web` for a page that predicts in the browser.
        runtime: For `format="web"`, see `web.site.export.export_site`.
        thresholds: Ages whose probabilities P(age >= T) the ONNX file outputs too; None or an empty list for none.

    Raises:
        AgeGenderError: See `prediction.export.export.export` and `web.site.export.export_site`.
    """
    if format == "web":
        from agegender.web.site.export import export_site

        require(not thresholds, f"thresholds={thresholds} is for format=onnx; leave it out")
        export_site(out, weights, check, precision, runtime)
        return
    from agegender.prediction.export.export import export

    require(runtime is None, f"runtime={runtime} is for format=web; leave it out")
    export(out, weights, check, precision or "float32", thresholds or ())
