"""Print figures of the code: size, density, longest functions and files, import chains, tests, benchmarks and docs.

    python benchmarks/code_figures.py                  # this folder
    python benchmarks/code_figures.py /path/to/other   # another copy, or any package

A line of code holds a token other than a comment or a docstring. Punctuation counts as a token. An import chain starts
at a module and follows its imports, including those inside functions but not those for type checkers only.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

OURS = ("data_catalog", "pipeline", "reports", "jobs", "dsmi_zoo")
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


class Source(NamedTuple):
    """The figures of one file."""

    tokens_by_line: Counter[int]
    comments: int
    function_lengths: dict[str, int]


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the numbers of the lines of all docstrings."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def read(path: Path) -> Source:
    """Return the figures of one file."""
    text = path.read_text()
    tree = ast.parse(text)
    skipped = docstring_lines(tree)
    tokens: Counter[int] = Counter()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
        elif token.type not in NOT_CODE and token.start[0] not in skipped:
            tokens[token.start[0]] += 1
    lengths = {
        f"{path.name}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return Source(tokens, comments, lengths)


def imported_modules(module: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules of the package that ``module`` imports, except those for type checkers only."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node in typing_only:
            continue
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            parents = parents[: len(parents) - node.level + 1]
            base = ".".join([*parents, base]).rstrip(".")
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            found.add(submodule if submodule in modules else base)
    return found & modules.keys() - {module}


def longest_chains(root: Path) -> dict[str, list[str]]:
    """Return the longest import chain from each module of the package; the imports must have no cycles."""
    paths = [path for name in OURS for path in sorted((root / name).rglob("*.py"))]
    modules = {}
    for path in paths:
        parts = path.relative_to(root).with_suffix("").parts
        parts = parts if parts[0] == "dsmi_zoo" else ("dsmi_zoo", *parts)
        modules[".".join(parts).removesuffix(".__init__")] = path
    imports = {name: imported_modules(name, path, modules) for name, path in modules.items()}
    imports["dsmi_zoo"] = set()  # the top-level package imports lazily, by name
    chains: dict[str, list[str]] = {}

    def chain(module: str) -> list[str]:
        if module not in chains:
            further = [chain(other) for other in sorted(imports[module])]
            chains[module] = [module, *max(further, key=len, default=[])]
        return chains[module]

    for module in modules:
        chain(module)
    return chains


def print_chains(root: Path) -> None:
    """Print the median and the longest import chain."""
    chains = longest_chains(root)
    longest = max(chains.values(), key=len)
    median = statistics.median(len(chain) for chain in chains.values())
    names = " -> ".join(name.removeprefix("dsmi_zoo.") for name in longest)
    print(
        f"{len(chains)} modules; modules in an import chain: median {median:.0f}, longest {len(longest)}"
    )
    print(f"longest import chain: {names}")


def print_surroundings(root: Path) -> None:
    """Print the lines of tests and benchmarks, and the words of the README and the docs."""
    for folder in ("tests", "benchmarks"):
        texts = [path.read_text() for path in (root / folder).rglob("*.py")]
        print(
            f"{folder}: {sum(len(text.splitlines()) for text in texts):,} lines in {len(texts)} files"
        )
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    words = sum(len(page.read_text().split()) for page in pages)
    print(f"README and docs: {words:,} words in {len(pages)} pages")


def main() -> None:
    """Print the figures of a folder."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    folders = [root / name for name in OURS if (root / name).is_dir()] or [root]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    sources = {path: read(path) for path in paths}

    lines = [count for source in sources.values() for count in source.tokens_by_line.values()]
    lengths = {
        name: length
        for source in sources.values()
        for name, length in source.function_lengths.items()
    }
    comments = sum(source.comments for source in sources.values())
    longest_function = max(lengths, key=lambda name: lengths[name])
    file_lengths = {path: len(path.read_text().splitlines()) for path in paths}
    longest_file = max(file_lengths, key=lambda path: file_lengths[path])

    print(f"{len(paths)} files, {len(lines):,} lines of code")
    ninetieth = statistics.quantiles(lines, n=10)[-1]
    print(f"tokens in a line: mean {statistics.mean(lines):.1f}, 90th percentile {ninetieth:.0f}")
    print(f"comments in 100 lines of code: {100 * comments / len(lines):.1f}")
    spread = statistics.quantiles(lengths.values(), n=20)
    print(f"lines of a function: median {spread[9]:.0f}, 95th percentile {spread[18]:.0f}")
    print(f"longest function: {longest_function}, {lengths[longest_function]} lines")
    print(f"longest file: {longest_file.relative_to(root)}, {file_lengths[longest_file]} lines")
    if all((root / name).is_dir() for name in OURS):
        print_chains(root)
        print_surroundings(root)


if __name__ == "__main__":
    main()
