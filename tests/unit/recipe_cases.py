"""A small recipe, the files it names, and one way to break each part of it."""

SHA = "ab" * 32
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECIPE = """\
name: garden
sources:
  tea: {title: Tea, license: MIT, redistributable: true, read: {adapter: pippa},
        fetch: {folder: config, files: {tea.jsonl: {sha256: SHA}}}}
mixtures:
  herbs:
    sources:
      tea: {max_rows: 5}
      orca: {}
models:
  seed:
    create:
      architecture: {hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
                     num_key_value_heads: 2}
      tokenizer: {mixture: herbs, vocab_size: 300}
  rose:
    train:
      base: seed
      mixture: herbs
      pack: {num_epochs: 2}
  bee:
    merge:
      models: [seed, rose]
      operations:
        - {filter: mlp, gradient_values: [0.2, 0.8]}
benchmark:
  suites: [quiz]
  models: [bee]
""".replace("SHA", SHA)
FILES = {
    "config/sources/orca.yaml": f"""\
title: Orca
license: MIT
redistributable: true
fetch: {{url: https://example.invalid/orca, files: {{a.parquet: {{sha256: {SHA}}}}}}}
read: {{adapter: openorca}}
""",
    "config/sources/diary.yaml": """\
title: Diary
license: none
redistributable: false
private: true
read: {adapter: forum}
""",
    "config/suites/quiz.yaml": "title: Quiz\ntasks: {held-out: {format: bits_per_byte}}\n",
    "config/presets/corrected.yaml": "optimizer: {adam_eps: 1.0e-9}\n",
    "config/presets/as-released.yaml": "optimizer: {adam_eps: 1.0e-8}\n",
}


CASES: dict[str, tuple[str, str, list[str]]] = {
    # name: (text of RECIPE, what replaces it, parts of the one message that must appear)
    "unknown key": (
        "num_epochs: 2",
        "num_epoch: 2",
        ["recipe.yaml:20: models.rose.train.pack.num_epoch: unknown key; allowed: ", 'did you mean "num_epochs"?'],
    ),
    "unknown key at the top": (
        "name: garden",
        "name: garden\ntitel: x",
        ["recipe.yaml:2: titel: unknown key", '"title"'],
    ),
    "unknown key below a source named like an adapter": (
        "tea: {max_rows: 5}",
        "pippa: {max_rowz: 5}",
        ["recipe.yaml:8: mixtures.herbs.sources.pippa.max_rowz: unknown key", '"max_rows"'],
    ),
    "wrong type": (
        "num_epochs: 2",
        "num_epochs: two",
        ["recipe.yaml:20: models.rose.train.pack.num_epochs: found 'two'; "],
    ),
    "text for a number": (
        "max_rows: 5",
        'max_rows: "5"',
        ["recipe.yaml:8: mixtures.herbs.sources.tea.max_rows: found '5'"],
    ),
    "yes for a number": (
        "max_rows: 5",
        "max_rows: yes",
        ["recipe.yaml:8: mixtures.herbs.sources.tea.max_rows: found True"],
    ),
    "out of range": (
        "[0.2, 0.8]",
        "[0.2, 1.8]",
        [
            "recipe.yaml:25: models.bee.merge.operations[0].gradient_values[1]: "
            "found 1.8; input should be less than or equal to 1"
        ],
    ),
    "no number": (
        "[0.2, 0.8]",
        "[0.2, .nan]",
        ["recipe.yaml:25: models.bee.merge.operations[0].gradient_values[1]: found nan"],
    ),
    "a list for a table": (
        "pack: {num_epochs: 2}",
        "pack: [1]",
        ["recipe.yaml:20: models.rose.train.pack: found a list; "],
    ),
    "missing key": ("      base: seed\n", "", ["recipe.yaml:17: models.rose.train.base: missing; add this key"]),
    "missing model": (
        "base: seed",
        "base: seeed",
        [
            "recipe.yaml:18: models.rose.train.base: model 'seeed' is not in the "
            'table of models; known: bee, rose, seed; did you mean "seed"?'
        ],
    ),
    "missing mixture": (
        "      mixture: herbs\n",
        "      mixture: herb\n",
        [
            "recipe.yaml:19: models.rose.train.mixture: "
            "mixture 'herb' is not in the table of mixtures; known: herbs; did you mean \"herbs\"?"
        ],
    ),
    "benchmark of a missing model": (
        "models: [bee]",
        "models: [bea]",
        ["recipe.yaml:28: benchmark.models[0]: model 'bea'", 'did you mean "bee"?'],
    ),
    "cycle": ("base: seed", "base: bee", ["is made from itself: rose -> bee -> rose; break the circle"]),
    "unknown source": (
        "orca: {}",
        "orka: {}",
        [
            "recipe.yaml:9: mixtures.herbs.sources.orka: unknown source 'orka'; known: "
            'diary, orca, tea; did you mean "orca"?'
        ],
    ),
    "unknown suite": (
        "suites: [quiz]",
        "suites: [quizz]",
        ["recipe.yaml:27: benchmark.suites[0]: unknown suite 'quizz'; known: quiz; did you mean \"quiz\"?"],
    ),
    "private source": (
        "orca: {}",
        "diary: {target_percent: 24}",
        [
            "recipe.yaml:9: mixtures.herbs.sources.diary: private source without a file, 24 % of this mixture; "
            "name the file under sources.diary.fetch, or set missing: reweight"
        ],
    ),
    "unknown preset": (
        "mixture: herbs\n      pack",
        "mixture: herbs\n      preset: correct\n      pack",
        [
            "recipe.yaml:20: models.rose.train.preset: found 'correct'; allowed: as-released, corrected; did you mean "
            '"corrected"?'
        ],
    ),
    "unknown adapter": (
        "adapter: pippa",
        "adapter: pipa",
        ["recipe.yaml:3: sources.tea.read: found 'pipa'; allowed: ", 'did you mean "pippa"?'],
    ),
    "key of another adapter": (
        "adapter: pippa",
        "adapter: pippa, chunk_word: 2",
        ["recipe.yaml:3: sources.tea.read.chunk_word: unknown key"],
    ),
    "setting of another adapter": (
        "adapter: pippa",
        "adapter: sharegpt, submitted_before: 2",
        ["recipe.yaml:3: sources.tea.read.submitted_before: unknown key; allowed: adapter"],
    ),
    "heads that don't divide the width": (
        "num_attention_heads: 2",
        "num_attention_heads: 3",
        ["recipe.yaml:13: models.seed.create.architecture: hidden_size 8 over num_attention_heads 3 must give an even"],
    ),
    "key heads that don't divide the heads": (
        "num_key_value_heads: 2",
        "num_key_value_heads: 3",
        ["recipe.yaml:13: models.seed.create.architecture: num_attention_heads 2 must be a multiple of"],
    ),
    "rows longer than the model": (
        "num_epochs: 2",
        "sequence_len: 4097",
        ["recipe.yaml:20: models.rose.train.pack.sequence_len: found 4097, but base seed has 4096 positions"],
    ),
    "files that the adapter doesn't read": (
        "tea.jsonl",
        "tea.txt",
        ["recipe.yaml:4: sources.tea.fetch.files: adapter pippa reads .jsonl or .json files"],
    ),
    "a task's file that isn't fetched": (
        "benchmark:\n  suites: [quiz]",
        f"suites: {{own: {{title: Own, fetch: {{folder: config, files: {{q.jsonl: {{sha256: {SHA}}}}}}},"
        " tasks: {t: {format: multiple_choice, file: p.jsonl}}}}\nbenchmark:\n  suites: [own]",
        ["recipe.yaml:26: suites.own.tasks.t.file: file 'p.jsonl' is not among suites.own.fetch.files", '"q.jsonl"'],
    ),
    "a task without its file": (
        "benchmark:\n  suites: [quiz]",
        "suites: {own: {title: Own, tasks: {t: {format: multiple_choice}}}}\nbenchmark:\n  suites: [own]",
        ["recipe.yaml:26: suites.own.tasks.t: format multiple_choice reads a file"],
    ),
    "a quoted number": (
        "num_epochs: 2",
        "sequence_len: '64'",
        [
            "recipe.yaml:20: models.rose.train.pack.sequence_len: found '64'; a number, not a text, is needed: "
            "leave the quotes away"
        ],
    ),
    "a digest one digit short": (SHA, SHA[1:], ["sha256: found 'ba", "needed: 64 lower-case hex digits", "pin FOLDER"]),
    "no list": ("suites: [quiz]", "suites: quiz", ["benchmark.suites: found 'quiz'; a list is needed: write [quiz]"]),
    "a recipe's name with a space": (
        "name: garden",
        "name: my garden!",
        ["recipe.yaml:1: name: found 'my garden!'; needed: letters, digits, `.`, `_` and `-`"],
    ),
    "three models": (
        "[seed, rose]",
        "[seed, rose, seed]",
        ["recipe.yaml:23: models.bee.merge.models: found 3 entries; at most 2 needed"],
    ),
    "an adapter far from all": ("adapter: pippa", "adapter: openai", ["found 'openai'; ", "; for your own data take"]),
    "duplicate key": (
        "name: garden",
        "name: garden\nname: park",
        ["recipe.yaml:2: name: given twice (first in line 1)"],
    ),
    "missing pin": (
        "{tea.jsonl: {sha256: " + SHA + "}}",
        "{tea.jsonl: null}",
        ["recipe.yaml:4: sources.tea.fetch: file 'tea.jsonl' needs a sha256", "scripts.recipe pin"],
    ),
    "bad commit": (
        "folder: config",
        "hub: quiet/garden@main",
        [
            "recipe.yaml:4: sources.tea.fetch: hub 'quiet/garden@main' "
            "is not [dataset:|model:]owner/name@<40 lower-case hex digits"
        ],
    ),
    "bad digest": (SHA, SHA.upper(), ["recipe.yaml:4: sources.tea.fetch.files.tea.jsonl.sha256: found 'ABAB"]),
    "two places": (
        "folder: config",
        "folder: config, url: https://h.invalid",
        ["sources.tea.fetch: needs exactly one of hub, url, folder; found url, folder"],
    ),
    "a password in an address": (
        "folder: config",
        "url: https://me:secret@h.invalid",
        ["url holds a user name or password"],
    ),
    "a climbing path": ("tea.jsonl", "../tea.jsonl", ["recipe.yaml:4: sources.tea.fetch.files.../tea.jsonl: found "]),
    "a name with a space": (
        "  herbs:\n",
        "  fine herbs:\n",
        ["recipe.yaml:6: mixtures.fine herbs: found 'fine herbs'; "],
    ),
    "two ways": (
        "  bee:\n",
        "  bee:\n    download: {hub: q/g@" + COMMIT + ", files: {a: null}}\n",
        ["recipe.yaml:21: models.bee: needs exactly one of download, create, train, merge; found download, merge"],
    ),
    "a name used twice": (
        "  seed:\n",
        "  tea: {download: {hub: q/g@" + COMMIT + ", files: {a: null}}}\n  seed:\n",
        ["recipe.yaml:11: models.tea: the name is used under sources too; rename one"],
    ),
    "a stage's name": (
        "  bee:\n",
        "  merge: {download: {hub: q/g@" + COMMIT + ", files: {a: null}}}\n  bee:\n",
        ["models.merge: is the name of a stage"],
    ),
    "no YAML": ("name: garden", "name: [garden", ["recipe.yaml:2: not valid YAML"]),
    "an impossible date": ("name: garden", "name: 2023-13-45", ["recipe.yaml: not valid YAML: month must be in 1..12"]),
    "an alias in itself": ("name: garden", "name: &a [*a]", ["recipe.yaml: tables and lists are nested too deeply"]),
    "a Python object": ("name: garden", "name: !!python/name:os.system", ["recipe.yaml:1: not valid YAML"]),
    "a token": ("name: garden", "name: garden\nhf_token: hf_CANARY", ["recipe.yaml:2: hf_token: unknown key"]),
}
