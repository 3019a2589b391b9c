"""`python -m medreward.lab.phantoms REGION FILE`: draws one phantom and says what is in it."""

from pathlib import Path

import click

from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.draw import REGIONS, draw


@click.command()
@click.argument("region", type=click.Choice(REGIONS))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", default=2, show_default=True, help="another number draws another phantom")
def main(region: str, file: Path, seed: int) -> None:
    """Draw a phantom of REGION as a PNG into FILE. Every machine draws the same pixels for the same seed."""
    phantom = draw(seed, region)
    file.write_bytes(png(phantom))
    findings = " and ".join(finding.one for finding in phantom.findings) or "no finding"
    click.echo(f"{file}: {phantom.modality} of the {phantom.region.replace('_', ' ')}, {findings}")


if __name__ == "__main__":
    main()
