//! The configuration from outside: sources and their order, errors all at once, and the reference file `proxy.toml`.
//!
//! Every case is a function of its sources; the environment of this process plays no part. No server is started.

use std::io::Write as _;
use std::time::Duration;

use pgladder::config::{
    AuthMethod, CacheWhat, Config, Endpoint, Flag, Freshness, RuleSubject, Sources, UserSecret,
};

/// Sources with a file of this text; the file lives as long as what is returned.
fn sources(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str, &[&str])],
) -> (Sources, tempfile::NamedTempFile) {
    let mut written = tempfile::NamedTempFile::new().expect("a file");
    written.write_all(file.as_bytes()).expect("written");
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let flag = |(key, name, values): &(&str, &str, &[&str])| Flag {
        key: (*key).to_owned(),
        name: (*name).to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let sources = Sources {
        file: Some(written.path().to_owned()),
        environment: environment.iter().map(pair).collect(),
        flags: flags.iter().map(flag).collect(),
        nodes_optional: false,
    };
    (sources, written)
}

fn load(file: &str) -> Result<Config, String> {
    load_all(file, &[], &[])
}

/// Errors are shown with `FILE` for the file's path, which differs from run to run.
fn load_all(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str, &[&str])],
) -> Result<Config, String> {
    let (sources, written) = sources(file, environment, flags);
    let path = written.path().display().to_string();
    Config::load(&sources).map_err(|errors| errors.to_string().replace(&path, "FILE"))
}

/// The lines of the errors, in order.
fn errors(file: &str) -> Vec<String> {
    let errors = load(file).expect_err(file);
    errors.lines().map(str::to_owned).collect()
}

const NODE: &str = "nodes = [\"10.0.0.1\"]\n";

fn tcp(host: &str, port: u16) -> Endpoint {
    Endpoint::Tcp {
        host: host.to_owned(),
        port,
    }
}

/// Something of every section.
const FULL: &str = r#"
[listen]
addresses = ["0.0.0.0:6433", "/run/pgladder"]
[[node]]
address = "10.0.0.1"
[[node]]
address = "10.0.0.2:5433"
weight = 3
[pool]
size = 8
idle_timeout = "90s"
[cluster]
lag_bytes_max = "unlimited"
control_user = "watcher"
[cache]
bytes = "64MiB"
what = "all_reads"
ttl = "hours"
[[cache.rule]]
table = "public.deals"
ttl = "45s"
freshness = "bounded 5m"
[[cache.rule]]
fingerprint = "00ff00ff00ff00ff"
cache = false
[freshness]
level = "session"
[functions]
safe = ["app.slug", "slug"]
[auth]
query = "off"
admins = ["root"]
[[auth.user]]
name = "ann"
password_env = "ANNS_PASSWORD"
[http]
listen = "127.0.0.1"
[log]
level = "info,pgladder::pool=debug"
"#;

#[test]
fn every_section_is_read() {
    let config = load_all(FULL, &[("ANNS_PASSWORD", "hunter2")], &[]).expect("a good configuration");
    assert_eq!(config.listen.addresses[0], tcp("0.0.0.0", 6433));
    assert_eq!(config.listen.addresses[1].to_string(), "/run/pgladder:6432");
    let nodes: Vec<_> = config
        .nodes
        .iter()
        .map(|node| (node.address.to_string(), node.weight))
        .collect();
    assert_eq!(
        nodes,
        [("10.0.0.1:5432".to_owned(), 1), ("10.0.0.2:5433".to_owned(), 3)]
    );
    assert_eq!(
        (config.pool.size, config.pool.idle_timeout),
        (8, Duration::from_secs(90))
    );
    assert_eq!(config.pool.queue_max, 1024, "what is not given keeps its default");
    assert_eq!(config.cluster.lag_bytes_max, None);
    assert_eq!(
        (config.cache.bytes, config.cache.what),
        (64 << 20, CacheWhat::AllReads)
    );
    assert_eq!(config.cache.ttl, Duration::from_secs(3600));
    let [first, second] = config.cache.rules.as_slice() else {
        panic!("two rules were given: {:?}", config.cache.rules);
    };
    assert_eq!(first.subject, RuleSubject::Table("public.deals".to_owned()));
    assert_eq!(
        first.freshness,
        Some(Freshness::Bounded(Duration::from_secs(300)))
    );
    assert_eq!(second.subject, RuleSubject::Fingerprint(0x00ff_00ff_00ff_00ff));
    assert_eq!((second.ttl, second.cache), (None, Some(false)));
    assert_eq!(config.freshness.level, Freshness::Session);
    assert_eq!(config.functions.safe, ["app.slug", "slug"]);
    let UserSecret::Password(password) = &config.auth.users[0].secret else {
        panic!("a password was given");
    };
    assert_eq!(password.0.as_str(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"), "a secret never shows");
    assert_eq!(config.http.listen, Some(tcp("127.0.0.1", 9632)));
    assert!(config.is_admin("root") && !config.is_admin("watcher"));
}

#[test]
fn the_later_source_wins_key_by_key() {
    let file = "nodes = [\"a\", \"b\"]\n[pool]\nsize = 1\nqueue_max = 1\nnode_connections_max = 9\n";
    let environment = [
        ("PGLADDER_POOL_SIZE", "2"),
        ("PGLADDER_POOL_QUEUE_MAX", "2"),
        ("PGLADDER_HTTP", "h:1"),
    ];
    let flags: [(&str, &str, &[&str]); 1] = [("pool.size", "--set", &["3"])];
    let config = load_all(file, &environment, &flags).expect("a good configuration");
    let pool = &config.pool;
    assert_eq!((pool.size, pool.queue_max, pool.node_connections_max), (3, 2, 9));
    assert_eq!(config.http.listen, Some(tcp("h", 1)));
    assert_eq!(config.nodes.len(), 2);
}

#[test]
fn nodes_of_a_later_source_replace_all_others() {
    let check = |environment: &[(&str, &str)], flags: &[(&str, &str, &[&str])], wanted: &[&str]| {
        let config = load_all("[[node]]\naddress = \"a\"\nweight = 5\n", environment, flags).expect("good");
        let nodes: Vec<_> = config.nodes.iter().map(|node| node.address.to_string()).collect();
        assert_eq!(nodes, wanted);
    };
    check(&[], &[], &["a:5432"]);
    let variable = [("PGLADDER_NODES", "b:1, c:2")];
    check(&variable, &[], &["b:1", "c:2"]);
    check(
        &variable,
        &[("nodes", "--node", &["d", "e:3"])],
        &["d:5432", "e:3"],
    );
}

#[test]
fn the_control_user_is_libpqs_unless_it_is_configured() {
    let user = |file: &str, environment: &[(&str, &str)]| {
        let text = format!("{NODE}{file}");
        load_all(&text, environment, &[])
            .expect("good")
            .cluster
            .control_user
    };
    let named = "[cluster]\ncontrol_user = \"file\"";
    assert_eq!(user("", &[("PGUSER", "libpq")]), "libpq");
    assert_eq!(user(named, &[("PGUSER", "libpq")]), "file");
    assert_eq!(
        user(
            named,
            &[("PGUSER", "libpq"), ("PGLADDER_CONTROL_USER", "variable")]
        ),
        "variable"
    );
    assert_eq!(user("", &[]), Config::default().cluster.control_user);
}

#[test]
fn all_errors_come_at_once_with_key_value_source_and_what_is_allowed() {
    let file = "nodes = [\"10.0.0.1\"]\n[pool]\nsize = 0\nsise = 3\n[cache]\nbytes = \"64 parsecs\"\n";
    let environment = [("PGLADDER_AUTH", "kerberos"), ("PGLADDER_CACHE_BYTE", "1MiB")];
    let flags: [(&str, &str, &[&str]); 1] = [("listen.addresses", "--listen", &["::1"])];
    let errors = load_all(file, &environment, &flags).expect_err("five errors");
    let mut lines: Vec<&str> = errors.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "PGLADDER_CACHE_BYTE = \"1MiB\" (from the environment): no such setting; did you mean PGLADDER_CACHE_BYTES?",
            "auth.method = \"kerberos\" (from PGLADDER_AUTH): allowed is one of \"scram\", \"cert\", \"trust\"",
            "cache.bytes = \"64 parsecs\" (from FILE): allowed is a size from \"64KiB\" to \"16TiB\", in B, KiB, MiB, GiB or TiB",
            "listen.addresses = \"::1\" (from --listen): allowed is a list of at most 64, each \"host:port\", \"[v6]:port\", \"*:port\" for every interface, or \
             \"/directory:port\" of a Unix socket; the port may be left out and is then 6432",
            "pool.sise = 3 (from FILE): no such setting; did you mean pool.size?",
            "pool.size = 0 (from FILE): allowed is a whole number from 1 to 10000",
        ]
    );
}

#[test]
fn every_error_names_its_key() {
    let check = |file: &str, wanted: &[&str]| {
        let errors = errors(file);
        assert_eq!(errors.len(), wanted.len(), "{file}\n{errors:#?}");
        for (error, wanted) in errors.iter().zip(wanted) {
            assert!(error.contains(wanted), "{file}\nwanted {wanted}\nfound {error}");
        }
    };
    let with_node = |text: &str, wanted: &[&str]| check(&format!("{NODE}{text}"), wanted);
    check("", &["nodes: missing; give at least one: --node"]);
    check(
        "nodes = [\"a\", \"a:5432\"]",
        &["nodes = [\"a\", \"a:5432\"] (from FILE): a:5432 is named twice"],
    );
    check(
        "nodes = [\"a\"]\n[[node]]\naddress = \"b\"",
        &["give either nodes or [[node]]"],
    );
    check(
        "[[node]]\nweight = 2",
        &["node[0].address: missing; give \"host:port\""],
    );
    check(
        "[[node]]\naddress = \"a\"\nwait = 2",
        &["node[0].wait = 2 (from FILE): no such setting; did you mean node.weight?"],
    );
    check(
        "[[node]]\naddress = \"a\"\n[[node]]\naddress = \"a\"",
        &["node[1].address = \"a\" (from FILE): a:5432 is named twice"],
    );
    check(
        "nodes = [\"127.0.0.1:6432\"]",
        &["listen.addresses: 127.0.0.1:6432 is also a node"],
    );
    check("nodes = 3", &["nodes = 3 (from FILE): allowed is a list"]);
    with_node(
        "[weather]\nsun = true",
        &["weather.sun = true (from FILE): no such setting"],
    );
    with_node("[weather]", &["weather = {} (from FILE): no such setting"]);
}

#[test]
fn settings_must_go_together() {
    let check = |text: &str, wanted: &[&str]| {
        let errors = errors(&format!("{NODE}{text}"));
        assert_eq!(errors, wanted, "{text}");
    };
    check(
        "[listen]\naddresses = [\"127.0.0.1\", \"0.0.0.0\"]\n[auth]\nmethod = \"trust\"",
        &[
            "auth.method = \"trust\" (from FILE): trust is allowed only where every listen address is loopback or a Unix \
           socket, and 0.0.0.0:6432 is not",
        ],
    );
    check(
        "[auth]\nquery = \"off\"",
        &["auth.user: missing; nobody could log in: give [[auth.user]], auth.query or auth.file"],
    );
    check(
        "[[auth.user]]\nname = \"ann\"",
        &["auth.user[0]: give exactly one of password, password_env and verifier"],
    );
    check(
        "[[auth.user]]\nname = \"ann\"\npassword_env = \"UNSET\"",
        &[
            "auth.user[0].password_env = \"UNSET\" (from FILE): allowed is the name of a variable that is set and not empty",
        ],
    );
    check(
        "[[auth.user]]\nname = \"ann\"\nverifier = \"hunter2\"",
        &[
            "auth.user[0].verifier (from FILE): allowed is a verifier as in pg_authid, \
           SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>",
        ],
    );
    check(
        "[[auth.users]]\nname = \"ann\"\npassword = \"hunter2\"",
        &[
            "auth.users[0].name = \"ann\" (from FILE): no such setting; did you mean auth.user.name?",
            "auth.users[0].password (from FILE): no such setting; did you mean auth.user.password?",
        ],
    );
    check(
        "[auth]\nmethod = \"cert\"",
        &[
            "tls.client.ca: missing; auth.method = \"cert\" needs the certificates that sign clients' ones",
            "tls.client.mode: auth.method = \"cert\" needs \"require\"",
        ],
    );
    check(
        "[tls.client]\nmode = \"require\"",
        &["tls.client.cert: missing; tls.client.mode = \"require\" needs a certificate and its key"],
    );
    check(
        "[cache]\nbytes = \"1MiB\"",
        &["cache.entry_bytes_max: one entry may be at most as large as cache.bytes"],
    );
    check(
        "[[cache.rule]]\ntable = \"t\"\npattern = \"*\"",
        &[
            "cache.rule[0]: missing; give one or more of ttl, freshness and cache",
            "cache.rule[0]: give exactly one of table, fingerprint and pattern",
        ],
    );
    check(
        "[log]\nlevel = \"loud\"",
        &[
            "log.level = \"loud\" (from FILE): allowed is off, error, warn, info, debug or trace, or such levels by module as \
           in \"info,pgladder::pool=debug\"",
        ],
    );
}

#[test]
fn users_of_the_file_stand_behind_those_of_the_configuration() {
    let list = tempfile::NamedTempFile::new().expect("a file");
    let path = list.path().display();
    std::fs::write(list.path(), "\"ann\" \"of the list\"\n\"bob\" \"b\"\n").expect("written");
    let file = format!("{NODE}[auth]\nfile = \"{path}\"\n[[auth.user]]\nname = \"ann\"\npassword = \"a\"");
    let config = load(&file).expect("a good configuration");
    let users: Vec<_> = config.auth.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(users, ["ann", "bob"]);
    let UserSecret::Password(password) = &config.auth.users[0].secret else {
        panic!("a password was given");
    };
    assert_eq!(password.0.as_str(), "a");
    std::fs::write(list.path(), "ann hunter2").expect("written");
    let wanted = format!(
        "auth.file = \"{path}\" (from FILE): line 1: not of the form \"name\" \"password or verifier\""
    );
    assert_eq!(errors(&file), [wanted]);
}

#[test]
fn every_interface_is_a_star_where_the_proxy_listens() {
    let config = load(&format!("{NODE}[listen]\naddresses = [\"*\", \"*:7000\"]")).expect("good");
    assert_eq!(config.listen.addresses, [tcp("*", 6432), tcp("*", 7000)]);
    assert!(
        !config.listen.addresses[0].is_local(),
        "trust is not allowed there"
    );
    assert!(load("nodes = [\"*:5432\"]").is_err());
}

#[test]
fn variables_of_others_are_left_alone() {
    let check = |name: &str, wanted: Option<&str>| {
        let found = load_all(NODE, &[(name, "x")], &[]).err();
        assert_eq!(found.as_deref(), wanted, "{name}");
    };
    check("PGLADDER_POSTGRES_BIN", None);
    check("PGLADDER_SERVICE_HOST", None);
    check("PGLADDER_PORT", None);
    check("PGLADDER_POOL_PORT_6432_TCP_ADDR", None);
    let unknown = "PGLADDER_POOL_COLOUR = \"x\" (from the environment): no such setting";
    check("PGLADDER_POOL_COLOUR", Some(unknown));
    assert!(
        load_all(NODE, &[("PGLADDER_POOL_SIZE", "")], &[]).is_ok(),
        "empty is as good as unset"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_one_error() {
    let errors = Config::load(&Sources {
        file: Some("/nonexistent/proxy.toml".into()),
        ..Sources::default()
    });
    let errors = errors.expect_err("there is no such file").to_string();
    assert!(
        errors.starts_with("/nonexistent/proxy.toml: cannot be read: "),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let errors = load("[auth]\npassword = hunter2\n").expect_err("no TOML");
    assert!(errors.starts_with("FILE: line 2 is not TOML: "), "{errors}");
    assert!(!errors.contains("hunter2"), "a secret never shows: {errors}");
}

#[test]
fn an_empty_section_is_no_error() {
    assert_eq!(
        load(&format!("{NODE}[pool]\n[tls.client]\n")).map(|config| config.pool.size),
        Ok(16)
    );
    assert_eq!(load(NODE).map(|config| config.auth.method), Ok(AuthMethod::Scram));
}
