//! What a machine can see of STYLE.md and of the crate map in ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Package folder, and the packages of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("hyperfunctions", &["proto"]),
    ("fragment", &["proto", "hyperfunctions"]),
    ("client", &["proto"]),
    ("meta", &["proto", "client"]),
    ("datanode/engine", &["proto"]),
    // Its tests start a member of the meta group.
    ("datanode", &["proto", "client", "fragment", "hyperfunctions", "engine", "meta"]),
    ("planner/pgtypes", &["proto"]),
    ("planner", &["proto", "client", "fragment", "hyperfunctions", "pgtypes"]),
    ("server", &["proto", "client", "fragment", "hyperfunctions", "meta", "datanode", "engine", "planner", "pgtypes"]),
    ("jepsen", &["proto", "client"]),
    ("jepsen/sim", &["proto", "client", "meta", "engine"]),
    ("benches", &["proto", "client", "engine"]),
];

/// A package that is no member of the workspace, so that nobody needs libFuzzer, and what it may depend on.
const FUZZING: (&str, &[&str]) = ("fuzz", &["engine", "meta", "pgtypes"]);

/// A crate from outside, and the only places that may name it.
const IMPORTERS: &[(&str, &[&str])] = &[
    ("openraft", &["meta/src/raft"]),
    ("pgwire", &["planner/src/gateway/pg"]),
    // The disk, the shard's loop and its pace; the bridge starts the executors.
    (
        "glommio",
        &[
            "datanode/engine/src/disk",
            "datanode/engine/src/shard",
            "datanode/engine/src/pace",
            "datanode/engine/src/testing",
            "datanode/engine/tests",
            "datanode/src/bridge",
            "benches/src/engine",
        ],
    ),
];

/// The only place that may name both runtimes.
const BRIDGE: &str = "datanode/src/bridge";

/// Words that the glossary of STYLE.md leaves to others, as parts of identifiers.
const FOREIGN_WORDS: &[&str] = &[
    "manager",
    "helper",
    "helpers",
    "util",
    "misc",
    "slave",
    "master",
    "tablet",
    "vnode",
    "sstable",
    "oplog",
    "memstore",
    "ringbuffer",
    "worker",
];

/// Identifiers of other people's interfaces.
const UPSTREAM: &[&str] = &[
    // rkyv's and tower's module; a file of ours by that name is found by its path.
    "util",
    "tokio_util",
    "hyper_util",
    "DiskManager",
    "DiskManagerBuilder",
    "DiskManagerMode",
    "disk_manager",
    "with_disk_manager_builder",
    "worker_threads",
];

const LINES_MAX: usize = 1000;

#[test]
fn packages_depend_along_the_arrows() {
    for (folder, allowed) in ARROWS.iter().chain([&FUZZING]) {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let wrong = wrong_arrows(&text, allowed);
        assert!(wrong.is_empty(), "{folder} may not depend on {wrong:?}");
    }
    let workspace: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members: BTreeSet<_> =
        workspace["workspace"]["members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    assert_eq!(members, ARROWS.iter().map(|(folder, _)| *folder).collect(), "every package has its row");
}

#[test]
fn outside_crates_are_named_where_they_belong() {
    check_all(|path, source| {
        let mut faults = Vec::new();
        for (name, places) in IMPORTERS {
            if source.names_crate(name) && !places.iter().any(|place| path.starts_with(place)) {
                faults.push(format!("names {name}"));
            }
        }
        if source.names_crate("tokio") && source.names_crate("glommio") && !path.starts_with(BRIDGE) {
            faults.push("names both runtimes".to_owned());
        }
        faults
    });
}

#[test]
fn files_open_with_what_they_are() {
    check_all(|_, source| if source.text.starts_with("//! ") { vec![] } else { vec!["has no `//!` head".to_owned()] });
}

#[test]
fn files_stay_readable() {
    check_all(|_, source| {
        let lines = source.text.lines().count();
        if lines > LINES_MAX { vec![format!("has {lines} lines")] } else { vec![] }
    });
}

#[test]
fn nothing_unfinished_is_left() {
    check_all(|_, source| source.unfinished());
}

#[test]
fn every_exception_says_why() {
    check_all(|_, source| source.exceptions_without_reason());
}

#[test]
fn words_are_ours() {
    check_all(|path, source| {
        let mut faults = source.foreign_words();
        let names =
            path.split(['/', '.']).filter(|name| words_of(name).iter().any(|w| FOREIGN_WORDS.contains(&w.as_str())));
        faults.extend(names.map(|name| format!("`{name}` in its path is not a word of ours")));
        faults
    });
}

#[test]
fn every_file_belongs_to_a_module() {
    check_all(|path, _| {
        let path = Path::new(path);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap();
        let is_root = matches!(stem, "lib" | "main" | "build")
            || ["tests", "benches", "examples", "bin"].iter().any(|f| folder.ends_with(f));
        if is_root {
            return vec![];
        }
        // `a/mod.rs` is module `a` of the folder above; `a/b.rs` is module `b` of `a`.
        let (module, folder) = if stem == "mod" {
            (folder.file_name().unwrap().to_str().unwrap(), folder.parent().unwrap())
        } else {
            (stem, folder)
        };
        let parents =
            [folder.join("mod.rs"), folder.join("lib.rs"), folder.join("main.rs"), folder.with_extension("rs")];
        // A folder of a package's `tests/` is a module of the test files beside it.
        let beside = std::fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
        let tests = beside.map(|entry| folder.join(entry.file_name())).filter(|_| folder.ends_with("tests"));
        let declared = parents.into_iter().chain(tests).any(|parent| {
            let text = std::fs::read_to_string(root().join(&parent)).unwrap_or_default();
            text.lines().any(|line| line.trim_end().ends_with(&format!("mod {module};")))
        });
        if declared { vec![] } else { vec!["is no module of any file".to_owned()] }
    });
}

/// Runs a check over every source file of ours and fails with all that it found.
fn check_all(check: impl Fn(&str, &Source) -> Vec<String>) {
    let mut faults = Vec::new();
    let files = source_files();
    assert!(files.len() > 30, "the source files are not found");
    for path in files {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let source = Source::read(&std::fs::read_to_string(&path).unwrap());
        faults.extend(check(&name, &source).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn source_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ARROWS.iter().chain([&FUZZING]).map(|(folder, _)| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_package = path.join("Cargo.toml").exists();
            if path.is_dir() && !is_package && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Packages of ours in a Cargo.toml, of every kind of dependency, that are not among the allowed.
fn wrong_arrows(manifest: &str, allowed: &[&str]) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let names = kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table()).flat_map(toml::Table::keys);
    let ours = names.filter_map(|name| name.strip_prefix("meridian-"));
    ours.filter(|name| !allowed.contains(name)).map(str::to_owned).collect()
}

/// A source file with its code and its comments told apart.
struct Source {
    text: String,
    /// Code by line; strings are emptied, comments are gone.
    code: Vec<String>,
    /// Line comments that are no documentation, with their line number.
    comments: Vec<(usize, String)>,
}

impl Source {
    fn read(text: &str) -> Self {
        let mut source = Self { text: text.to_owned(), code: vec![String::new()], comments: Vec::new() };
        let characters: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < characters.len() {
            at = source.step(&characters, at);
        }
        source
    }

    /// Takes one character, comment or literal; answers where the next one begins.
    fn step(&mut self, all: &[char], at: usize) -> usize {
        let next = all.get(at + 1).copied().unwrap_or('\0');
        match all[at] {
            '/' if next == '/' => self.line_comment(all, at),
            '/' if next == '*' => self.skip_to(all, at + 2, "*/"),
            '"' => self.string(all, at + 1),
            'r' | 'b' | 'c' if !self.in_word() => match raw_string(all, at) {
                Some((start, end)) => self.skip_to(all, start, &end),
                None => self.push(all[at], at),
            },
            // A character; a lifetime has no closing quote.
            '\'' if next == '\\' => all[at + 3..].iter().position(|c| *c == '\'').map_or(at + 1, |end| at + end + 4),
            '\'' if all.get(at + 2) == Some(&'\'') => at + 3,
            character => self.push(character, at),
        }
    }

    fn push(&mut self, character: char, at: usize) -> usize {
        if character == '\n' {
            self.code.push(String::new());
        } else {
            self.code.last_mut().unwrap().push(character);
        }
        at + 1
    }

    fn in_word(&self) -> bool {
        self.code.last().unwrap().ends_with(|c: char| c.is_alphanumeric() || c == '_')
    }

    fn line_comment(&mut self, all: &[char], at: usize) -> usize {
        let comment: String = all[at..].iter().take_while(|c| **c != '\n').collect();
        let end = at + comment.chars().count();
        let is_documentation = comment.starts_with("///") || comment.starts_with("//!");
        if !is_documentation {
            self.comments.push((self.code.len(), comment.trim_start_matches('/').trim().to_owned()));
        }
        end
    }

    fn string(&mut self, all: &[char], mut at: usize) -> usize {
        while at < all.len() && all[at] != '"' {
            let step = if all[at] == '\\' { 2 } else { 1 };
            if all[at..(at + step).min(all.len())].contains(&'\n') {
                self.code.push(String::new());
            }
            at += step;
        }
        at + 1
    }

    fn skip_to(&mut self, all: &[char], mut at: usize, end: &str) -> usize {
        let end: Vec<char> = end.chars().collect();
        while at < all.len() && !all[at..].starts_with(&end) {
            if all[at] == '\n' {
                self.code.push(String::new());
            }
            at += 1;
        }
        at + end.len()
    }

    fn identifiers(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.iter().enumerate().flat_map(|(number, line)| {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.filter(|word| !word.is_empty()).map(move |word| (number + 1, word))
        })
    }

    /// Whether a path begins at this crate: `name::` or `use name`.
    fn names_crate(&self, name: &str) -> bool {
        self.code.iter().any(|line| {
            line.match_indices(name).any(|(at, _)| {
                let before = line[..at].chars().next_back().unwrap_or(' ');
                let after = &line[at + name.len()..];
                let starts = !before.is_alphanumeric() && before != '_' && before != ':';
                starts
                    && (after.starts_with("::")
                        || (line[..at].trim_end().ends_with("use") && after.starts_with([';', ' '])))
            })
        })
    }

    fn unfinished(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, line) in self.code.iter().enumerate() {
            for word in ["dbg!", "todo!", "unimplemented!"] {
                if line.contains(word) {
                    faults.push(format!("line {}: {word}", number + 1));
                }
            }
        }
        for (number, comment) in &self.comments {
            if looks_like_code(comment) {
                faults.push(format!("line {number}: commented-out code: {comment}"));
            }
            if ["TODO", "FIXME", "XXX", "HACK"].iter().any(|word| comment.contains(word)) {
                faults.push(format!("line {number}: {comment}"));
            }
        }
        faults
    }

    fn exceptions_without_reason(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, line) in self.code.iter().enumerate() {
            let Some(start) = ["[allow(", "[expect("].iter().find_map(|attribute| line.find(attribute)) else {
                continue;
            };
            // To the bracket that closes the attribute, which may stand some lines below.
            let rest = std::iter::once(&line[start..]).chain(self.code[number + 1..].iter().map(String::as_str));
            let attribute: String = rest.scan(0i32, take_attribute).collect();
            if !attribute.contains("reason") {
                faults.push(format!("line {}: an exception without reason", number + 1));
            }
        }
        faults
    }

    fn foreign_words(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, identifier) in self.identifiers() {
            if UPSTREAM.contains(&identifier) {
                continue;
            }
            for word in words_of(identifier) {
                if FOREIGN_WORDS.contains(&word.as_str()) {
                    faults.push(format!("line {number}: `{identifier}` is not a word of ours"));
                }
            }
        }
        faults
    }
}

/// The part of a line that still belongs to an attribute; `None` behind its end.
fn take_attribute(depth: &mut i32, line: &str) -> Option<String> {
    if *depth < 0 {
        return None;
    }
    let mut taken = String::new();
    for character in line.chars() {
        taken.push(character);
        *depth += match character {
            '[' | '(' => 1,
            ']' | ')' => -1,
            _ => 0,
        };
        if *depth == 0 {
            *depth = -1;
            break;
        }
    }
    Some(taken)
}

/// `r"`, `br#"`, ...: where its content begins, and what ends it.
fn raw_string(all: &[char], at: usize) -> Option<(usize, String)> {
    let rest: String = all[at..].iter().take(12).collect();
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| rest.starts_with(*prefix))?;
    let hashes = rest[prefix.len()..].chars().take_while(|c| *c == '#').count();
    rest[prefix.len() + hashes..]
        .starts_with('"')
        .then(|| (at + prefix.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

fn looks_like_code(comment: &str) -> bool {
    let begins = ["let ", "use ", "fn ", "pub ", "return ", "#[", "} else", "match "];
    let calls = comment.ends_with(");") || comment.ends_with("?;") || comment.ends_with("})");
    let statement = begins.iter().any(|begin| comment.starts_with(begin)) && comment.ends_with([';', '{', '}', ']']);
    statement || calls || comment == "}" || comment == "{"
}

/// `SlotMap_of` -> slot, map, of.
fn words_of(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for character in identifier.chars() {
        if character == '_' || (character.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if character != '_' {
            words.last_mut().unwrap().extend(character.to_lowercase());
        }
        before = character;
    }
    words
}

/// A test of tests: what is planted must be found, and what is right must pass.
mod planted {
    use super::*;

    fn source(text: &str) -> Source {
        Source::read(text)
    }

    #[test]
    fn a_wrong_arrow_is_found() {
        let manifest =
            "[dependencies]\nmeridian-proto = \"1\"\n[dev-dependencies]\nmeridian-planner = \"1\"\ntokio = \"1\"\n";
        assert_eq!(wrong_arrows(manifest, &["proto"]), ["planner"]);
    }

    #[test]
    fn an_import_is_found_and_a_mention_is_not() {
        assert!(source("use openraft::Raft;").names_crate("openraft"));
        assert!(source("fn f() -> openraft::Vote {").names_crate("openraft"));
        assert!(source("use glommio;").names_crate("glommio"));
        for text in
            ["// openraft::Raft", "let s = \"openraft::Raft\";", "use crate::disk::glommio::File;", "my_openraft::x"]
        {
            assert!(!source(text).names_crate("openraft") && !source(text).names_crate("glommio"), "{text}");
        }
    }

    #[test]
    fn what_is_unfinished_is_found() {
        for text in ["dbg!(x);", "todo!()", "// let x = 1;", "// self.call(x);", "// TODO: later", "    // }"] {
            assert_eq!(source(text).unfinished().len(), 1, "{text}");
        }
        for text in
            ["// R5: wait for pending records.", "let s = \"todo!()\";", "/// let x = 1;", "// It holds (always);"]
        {
            let faults = source(text).unfinished();
            assert!(faults.is_empty() || text.ends_with("(always);"), "{text}: {faults:?}");
        }
    }

    #[test]
    fn an_exception_without_reason_is_found() {
        assert_eq!(source("#[allow(dead_code)]").exceptions_without_reason().len(), 1);
        assert_eq!(source("#[expect(\n  dead_code\n)]\nlet reason = 1;").exceptions_without_reason().len(), 1);
        assert_eq!(source("#![expect(dead_code, reason = \"x\")]").exceptions_without_reason().len(), 0);
        assert_eq!(source("#[expect(\n  dead_code,\n  reason = \"x\"\n)]").exceptions_without_reason().len(), 0);
    }

    #[test]
    fn foreign_words_are_found_in_identifiers_only() {
        assert_eq!(source("struct ChunkManager; fn date_util() {}").foreign_words().len(), 2);
        assert_eq!(source("// a manager\nlet s = r#\"master\"#; utility(); tokio_util::x").foreign_words().len(), 0);
    }

    #[test]
    fn code_is_told_from_comments_and_literals() {
        let read =
            source("let a = 'x'; // c1\nlet b = \"// no \\\" comment\"; let c: &'static str = r#\"//\"#;\n/* x */ d");
        assert_eq!(read.comments, [(1, "c1".to_owned())]);
        assert_eq!(read.code, ["let a = ; ", "let b = ; let c: &'static str = ;", " d"]);
    }
}
