"""The JSON Schema of a config against jsonschema: every YAML of configs/ is valid, and what llmtk refuses is not."""

import copy
import json
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from support import main, run

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(os.environ["LLMTK_SOURCE"])


class Yaml12(yaml.SafeLoader):
    """As editors and llmtk read numbers: 1e-4 is one; on, off, yes and no are words."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float",
                                                                        "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}
Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), "tTfF")
Yaml12.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$"), "-+.0123456789")


def schema():
    return json.loads(run("pretrain", "--config-schema"))


def read(path):
    return yaml.load(Path(path).read_text(), Yaml12)


def configs():
    return sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))


def test_is_a_schema():
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema()["additionalProperties"] is False


def test_every_config_is_valid():
    validator = Draft202012Validator(schema())
    assert configs()
    for path in configs():
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(read(path))]
        assert not errors, (path, errors)


def test_every_default_is_valid_and_every_key_explained():
    count = 0

    def walk(node, path):
        nonlocal count
        for key, value in node.get("properties", {}).items():
            count += 1
            assert len(value.get("description", "")) > 5, f"{path}.{key} has no description"
            if "default" in value:
                errors = list(Draft202012Validator(value).iter_errors(value["default"]))
                assert not errors, (f"{path}.{key}", value["default"], [error.message for error in errors])
            walk(value, f"{path}.{key}")
            if isinstance(value.get("items"), dict):
                walk(value["items"], f"{path}.{key}[]")

    walk(schema(), "")
    assert count > 50, count


def test_refuses_what_llmtk_refuses():
    validator = Draft202012Validator(schema())
    path = configs()[0]
    good = read(path)
    cases = [("optimizer", "learning_rte", 1.0), ("optimizer", "learning_rate", "fast"), ("optimizer", "learning_rate", 0),
             ("optimizer", "type", "adamm"), ("trainer", "max_steps", 1.5), ("trainer", "max_steps", -2),
             ("trainer", "output_dir", ""), ("data", "train", []), ("data", "max_length", None),
             ("scheduler", "min_lr_ratio", 1.01), ("trainer", "deterministic", "maybe"), ("nonsense", "x", 1)]
    for section, key, value in cases:
        bad = copy.deepcopy(good)
        bad.setdefault(section, {})[key] = value
        assert not validator.is_valid(bad), f"the schema takes {section}.{key}: {value!r}"
        out, err = run("pretrain", path, "--dry-run", f"{section}.{key}={json.dumps(value)}", exit=2)
        assert key in err or section in err, err
    for section, key in (("trainer", "output_dir"), ("data", "train")):
        bad = copy.deepcopy(good)
        del bad[section][key]
        assert not validator.is_valid(bad), f"the schema does without {section}.{key}"


main(globals())
