//! Holds the house rules that clippy and rustfmt cannot: file headers, lengths, names, and which module may import which.
//!
//! Every rule is a pure function from a text to its problems, and is itself tested with small texts, so that a rule which
//! stopped finding anything fails. It reads the working tree and runs nothing. CONTRIBUTING.md gives the reasons.

use std::fs;
use std::path::{Path, PathBuf};

/// Upper first: a layer may import itself and what stands after it.
const LAYERS: [&str; 12] = [
    "listener",
    "session",
    "auth",
    "ladder",
    "route",
    "cache",
    "stream",
    "freshness",
    "catalog",
    "sql",
    "pool",
    "cluster",
];
/// The lowest layer, apart only because every layer may import it.
const LOWEST: &str = "protocol";
/// These stand beside the layers and may import everything.
const BESIDE: [&str; 4] = ["admin", "cli", "demo", "serve"];
/// These may be imported by everything and import nothing.
const LEAVES: [&str; 2] = ["config", "telemetry"];
/// Bytes and facts in, bytes and facts out.
const PURE: [&str; 3] = ["protocol", "sql", "route"];

const HEADER_LINES: std::ops::RangeInclusive<usize> = 3..=12;
const FILE_LINES_MAX: usize = 600;
const INLINE_TEST_LINES_MAX: usize = 150;
const MAIN_LINES_MAX: usize = 99;
const FORBIDDEN_FILES: [&str; 8] = [
    "util", "utils", "common", "types", "helper", "helpers", "misc", "shared",
];

// Written in two halves, so that this file does not contain what it looks for.
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
    concat!("#[ign", "ore"),
    concat!("allow(dead", "_code"),
    concat!("FIX", "ME"),
];
const SLEEPS: [&str; 4] = [
    concat!("thread::sl", "eep"),
    concat!("time::sl", "eep("),
    concat!("time::sl", "eep;"),
    concat!("time::{sl", "eep"),
];
const MACHINE_PATHS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tm", "p/"),
    concat!("/ho", "me/"),
];
const GETTER: &str = concat!("fn g", "et_");
/// A Unix socket's well-known place, which says nothing about one machine.
const SOCKET_PATH: &str = concat!("/tm", "p/.s.PGSQL.");

fn header(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
    // The crate's own documentation holds the map, and may be longer.
    if HEADER_LINES.contains(&lines) || (path == "src/lib.rs" && lines > *HEADER_LINES.end()) {
        return Vec::new();
    }
    vec![format!(
        "begins with {lines} lines of `//!`, {HEADER_LINES:?} are wanted"
    )]
}

/// Splits a source text where its inline test module begins.
fn split_tests(text: &str) -> (&str, &str) {
    let inline = [
        "#[cfg(test)]\nmod tests {",
        "#[cfg(test)]\npub mod tests {",
        "#[cfg(test)]\npub(crate) mod tests {",
    ];
    let at = inline
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .unwrap_or(text.len());
    text.split_at(at)
}

fn length(path: &str, text: &str) -> Vec<String> {
    let (code, tests) = split_tests(text);
    let mut problems = Vec::new();
    let max = if path == "src/main.rs" {
        MAIN_LINES_MAX
    } else {
        FILE_LINES_MAX
    };
    if code.lines().count() > max && !is_test_file(path) {
        problems.push(format!(
            "has {} lines outside tests, {max} are allowed",
            code.lines().count()
        ));
    }
    if tests.lines().count() > INLINE_TEST_LINES_MAX {
        problems.push(format!(
            "has {} lines of inline tests: above {INLINE_TEST_LINES_MAX} they move to a sibling tests.rs",
            tests.lines().count()
        ));
    }
    problems
}

fn file_name(path: &str) -> Vec<String> {
    let stem = Path::new(path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    // `util/mod.rs` is the same name in another place.
    let parents = Path::new(path)
        .parent()
        .into_iter()
        .flat_map(Path::iter)
        .filter_map(|part| part.to_str());
    let mut names = parents.chain([stem]);
    names
        .find(|name| FORBIDDEN_FILES.contains(name))
        .map(|name| format!("is named `{name}`, which says nothing of its subject"))
        .into_iter()
        .collect()
}

/// Source without comments: a rule about code must not trip over a sentence.
fn without_comments(text: &str) -> String {
    let kept = text.lines().map(|line| match line.find("//") {
        // A `//` that follows a colon is a URL's, in a string.
        Some(at) if at == 0 || !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// The first path segment of everything named by `crate::`, groups included.
fn imported_modules(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, mark) in code.match_indices("crate::") {
        // `my_crate::x` is another word; `$crate::x` in a macro is this crate.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + mark.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_heads(group));
        } else {
            found.push(identifier(rest));
        }
    }
    found
}

/// Heads of a group `{a::b, c::{d, e}, f}` whose opening brace is already gone.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut at_head) = (Vec::new(), 0_usize, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && !c.is_whitespace() => {
                heads.push(identifier(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// `src/sql/functions.rs` belongs to `sql`, `src/lib.rs` to the crate's root (`None`).
fn module_of(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?;
    let first = inner.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib" && module != "main").then_some(module)
}

fn rank(module: &str) -> Option<usize> {
    if module == LOWEST {
        return Some(LAYERS.len());
    }
    LAYERS.iter().position(|layer| *layer == module)
}

fn imports(path: &str, text: &str) -> Vec<String> {
    let Some(importer) = module_of(path) else {
        return Vec::new();
    };
    let is_known =
        |module: &str| rank(module).is_some() || BESIDE.contains(&module) || LEAVES.contains(&module);
    if !is_known(importer) {
        return vec![format!("module `{importer}` is not on the map in tests/tidy.rs")];
    }
    let may_import = |imported: &str| {
        if imported == importer || BESIDE.contains(&importer) {
            return true;
        }
        match (rank(importer), rank(imported)) {
            (Some(upper), Some(lower)) => upper < lower,
            // The accept loop is what hands a client of the database `pgladder` to the console.
            (Some(_), None) => LEAVES.contains(&imported) || (importer == "listener" && imported == "admin"),
            (None, _) => false,
        }
    };
    let (code, _) = split_tests(text);
    let mut upward: Vec<String> = imported_modules(&without_comments(code));
    // A macro or a type at the crate's root is no module of the map.
    upward.retain(|module| is_known(module) && !may_import(module));
    upward.sort();
    upward.dedup();
    upward
        .iter()
        .map(|imported| format!("`{importer}` must not import `{imported}`: imports point downward"))
        .collect()
}

fn purity(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(path).filter(|module| PURE.contains(module)) else {
        return Vec::new();
    };
    let code = without_comments(text);
    let impure = ["tokio::", "tokio_util::", "async fn", "async move", ".await"];
    impure
        .iter()
        .filter(|word| code.contains(*word))
        .map(|word| format!("`{module}` is pure, yet it says `{word}`"))
        .collect()
}

fn names(text: &str) -> Vec<String> {
    let code = without_comments(text);
    let mut problems = Vec::new();
    for keyword in ["struct ", "enum ", "trait "] {
        for (at, _) in code.match_indices(keyword) {
            let name = identifier(&code[at + keyword.len()..]);
            let is_vague = ["Manager", "Handler", "Helper"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            // bb8 names its trait so, and what implements it may follow.
            if is_vague && !code.contains(&format!("ManageConnection for {name}")) {
                problems.push(format!("type `{name}` is named for nothing it does"));
            }
        }
    }
    let getters = code.match_indices(GETTER);
    problems.extend(getters.map(|(at, _)| format!("`{}` begins with `get_`", identifier(&code[at + 3..]))));
    problems
}

fn unfinished(text: &str) -> Vec<String> {
    UNFINISHED
        .iter()
        .filter(|word| text.contains(*word))
        .map(|word| format!("contains `{word}`"))
        .collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs")
}

fn sleeps(path: &str, text: &str) -> Vec<String> {
    let tests = if is_test_file(path) {
        text
    } else {
        split_tests(text).1
    };
    let code = without_comments(tests);
    SLEEPS
        .iter()
        .filter(|word| code.contains(*word))
        .map(|word| format!("a test sleeps (`{word}`)"))
        .collect()
}

fn machine_paths(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for path in MACHINE_PATHS {
        for (at, _) in text.match_indices(path) {
            // Part of a longer path, or of a URL.
            let continues = text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}~*".contains(c));
            if !continues && !text[at..].starts_with(SOCKET_PATH) {
                problems.push(format!("names a place of one machine, `{path}`"));
            }
        }
    }
    problems
}

/// Targets of `[text](target)` that are files; fenced code is not looked at.
fn linked_files(markdown: &str) -> Vec<String> {
    let mut fenced = false;
    let mut targets = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let files = links.map(|target| target.split('#').next().unwrap_or_default());
        let is_file =
            |target: &&str| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
        targets.extend(files.filter(is_file).map(str::to_owned));
    }
    targets
}

/// Every file that is shipped: what is under version control, or will be.
fn files() -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let skipped = [
        ".git",
        "target",
        ".venv",
        "corpus",
        "artifacts",
        "__pycache__",
        "node_modules",
    ];
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the tree is readable") {
            let entry = entry.expect("the tree is readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a file has a type");
            if kind.is_dir() && !skipped.contains(&name.as_str()) {
                directories.push(entry.path());
            } else if kind.is_file() && name != "Cargo.lock" && name != ".git" {
                let inner = entry.path();
                let inner = inner.strip_prefix(&root).expect("it was found below the root");
                // What is not text has no words to look at.
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    found.push((inner.to_string_lossy().into_owned(), text));
                }
            }
        }
    }
    found
}

fn is_rust(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

fn problems_of(path: &str, text: &str) -> Vec<String> {
    let mut problems = machine_paths(text);
    if is_rust(path) {
        problems.extend([file_name(path), unfinished(text), sleeps(path, text), names(text)].concat());
        problems.extend([header(path, text), length(path, text)].concat());
        if path.starts_with("src/") && !is_test_file(path) {
            problems.extend([imports(path, text), purity(path, text)].concat());
        }
    }
    if Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "md")
    {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(Path::new(path).parent().expect("a file's path"));
        let missing = linked_files(text)
            .into_iter()
            .filter(|target| !folder.join(target).exists());
        problems.extend(missing.map(|target| format!("links to `{target}`, which does not exist")));
    }
    problems
}

#[test]
fn the_tree_keeps_the_house_rules() {
    let files = files();
    assert!(
        files.iter().any(|(path, _)| path == "src/lib.rs"),
        "the sources were not found"
    );
    let mut problems: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| {
            problems_of(path, text)
                .into_iter()
                .map(move |problem| format!("{path}: {problem}"))
        })
        .collect();
    problems.sort();
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn headers_and_lengths_are_counted() {
    assert_eq!(
        header("src/sql/a.rs", "//! One.\n//!\n//! Three.\n\nfn f() {}").len(),
        0
    );
    assert_eq!(header("src/sql/a.rs", "//! One.\n//! Two.\nfn f() {}").len(), 1);
    assert_eq!(header("src/sql/a.rs", &"//! Line.\n".repeat(13)).len(), 1);
    assert_eq!(header("src/lib.rs", &"//! Line.\n".repeat(13)).len(), 0);
    assert_eq!(header("src/lib.rs", "//! Line.\n").len(), 1);
    let long = "line\n".repeat(601);
    assert_eq!(length("src/sql/a.rs", &long).len(), 1);
    assert_eq!(length("src/sql/tests.rs", &long).len(), 0);
    assert_eq!(length("src/main.rs", &"line\n".repeat(100)).len(), 1);
    let tested = |lines| {
        format!(
            "fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}",
            "line\n".repeat(lines)
        )
    };
    assert_eq!(length("src/sql/a.rs", &tested(140)).len(), 0);
    assert_eq!(
        length("src/sql/a.rs", &tested(601)),
        length("src/cache/a.rs", &tested(601))
    );
    assert_eq!(
        length("src/sql/a.rs", &tested(601)).len(),
        1,
        "tests do not count as code, but are too long inline"
    );
}

#[test]
fn names_are_looked_at() {
    assert_eq!(file_name("src/sql/util.rs").len(), 1);
    assert_eq!(file_name("src/helpers/mod.rs").len(), 1);
    assert_eq!(file_name("src/sql/statement.rs").len(), 0);
    assert_eq!(names("pub struct PoolManager;").len(), 1);
    assert_eq!(
        names("struct PoolManager; impl ManageConnection for PoolManager {}").len(),
        0
    );
    assert_eq!(names(&format!("{GETTER}name() {{}}")).len(), 1);
}

#[test]
fn imports_point_downward() {
    let check = |path: &str, text: &str, count: usize| {
        assert_eq!(
            imports(path, text).len(),
            count,
            "{path}: {text}: {:?}",
            imports(path, text)
        );
    };
    check("src/session/mod.rs", "use crate::pool::Lease;", 0);
    check("src/pool/mod.rs", "use crate::session::Client;", 1);
    check(
        "src/sql/mod.rs",
        "use crate::{config::Config, route::{Route, x}, protocol};",
        1,
    );
    check("src/cluster/mod.rs", "let lsn = crate::protocol::lsn::Lsn(1);", 0);
    check("src/protocol/lsn.rs", "use crate::cluster::NodeId;", 1);
    check(
        "src/config/mod.rs",
        "use crate::protocol::lsn::Lsn; use crate::config::size::Bytes;",
        1,
    );
    check(
        "src/admin/mod.rs",
        "use crate::listener::x; use crate::config::Config;",
        0,
    );
    check("src/session/mod.rs", "use crate::admin::x; use crate::cli::y;", 2);
    check("src/listener/mod.rs", "use crate::admin::x;", 0);
    check(
        "src/pool/mod.rs",
        "// see crate::session::Client\nuse other_crate::session::x;",
        0,
    );
    check(
        "src/pool/mod.rs",
        "#[cfg(test)]\nmod tests {\nuse crate::session::x;\n}",
        0,
    );
    check("src/extra/mod.rs", "", 1);
    check("src/lib.rs", "use crate::listener::x;", 0);
}

#[test]
fn purity_and_sleeps_are_seen() {
    assert_eq!(purity("src/route/mod.rs", "use tokio::sync::watch;").len(), 1);
    assert_eq!(
        purity("src/sql/mod.rs", "pub async fn f() { g().await }").len(),
        2
    );
    assert_eq!(purity("src/pool/mod.rs", "use tokio::sync::watch;").len(), 0);
    assert_eq!(purity("src/sql/mod.rs", "// tokio::spawn is not used").len(), 0);
    let sleep = format!("tokio::{}D).await;", SLEEPS[1]);
    assert_eq!(sleeps("tests/proxy.rs", &sleep).len(), 1);
    assert_eq!(sleeps("src/pool/tests.rs", &sleep).len(), 1);
    assert_eq!(sleeps("src/pool/mod.rs", &sleep).len(), 0);
    assert_eq!(
        sleeps(
            "src/pool/mod.rs",
            &format!("#[cfg(test)]\nmod tests {{\n{sleep}\n}}")
        )
        .len(),
        1
    );
}

#[test]
fn words_and_links_are_seen() {
    for word in UNFINISHED {
        assert_eq!(unfinished(&format!("    {word}")).len(), 1, "{word}");
    }
    for path in MACHINE_PATHS {
        assert_eq!(machine_paths(&format!("cd {path}x")).len(), 1, "{path}");
        assert_eq!(machine_paths(&format!("target{path}x")).len(), 0, "{path}");
    }
    assert_eq!(machine_paths(&format!("{SOCKET_PATH}5432")).len(), 0);
    let links =
        linked_files("[a](docs/a.md#part) [b](https://x.y/z) [c](#here)\n```\n[d](no.md)\n```\n![e](e.png)");
    assert_eq!(links, ["docs/a.md", "e.png"]);
}
