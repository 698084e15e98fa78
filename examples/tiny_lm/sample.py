"""Write text with a model that train.py has made.

python sample.py output "class " --bytes 300 --temperature 0.7
"""

import argparse
import sys
from pathlib import Path

from tinylm import files, generate


def main() -> int:
    """Print a sample; returns the process's exit code."""
    parser = argparse.ArgumentParser(description="Write text with a finished tiny-lm model.")
    parser.add_argument("model", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("prompt", nargs="?", default="def ", help="how the text begins")
    parser.add_argument("--bytes", type=int, default=400, help="how many bytes to write")
    parser.add_argument("--temperature", type=float, default=0.7, help="above 0; lower is tamer")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.temperature <= 0 or options.bytes < 0 or options.seed < 0:
        parser.error("--temperature must be above 0, --bytes and --seed not below 0")
    try:
        model = files.load_model(options.model)
    except files.CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        generate.write(
            model,
            options.prompt,
            count=options.bytes,
            temperature=options.temperature,
            seed=options.seed,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
