//! The turns of a transaction, each as PostgreSQL takes it, and the order in which a connection is brought up to date.
//!
//! Run by `cargo test`. Statement by statement, as the manual describes SET, SET LOCAL, RESET and SAVEPOINT.

use super::*;

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn check(settings: &Settings, value: Option<&str>) {
    assert_eq!(settings.in_force("timezone"), value);
}

#[test]
fn a_set_lasts_and_a_reset_goes_back_to_startup() {
    let mut settings = Settings::new(values(&[("timezone", "UTC")]));
    check(&settings, Some("UTC"));
    settings.set("timezone", "Europe/Rome");
    check(&settings, Some("Europe/Rome"));
    settings.reset("timezone");
    check(&settings, Some("UTC"));
    settings.set("timezone", "Europe/Rome");
    settings.set("role", "bob");
    settings.reset_all();
    check(&settings, Some("UTC"));
    assert_eq!(settings.in_force("role"), Some("bob"), "RESET ALL keeps the role");
    settings.discard_all();
    assert_eq!(settings.in_force("role"), None);
}

#[test]
fn a_rollback_takes_a_set_back_and_a_commit_keeps_it() {
    let mut settings = Settings::default();
    settings.begin();
    settings.set("timezone", "Asia/Tokyo");
    check(&settings, Some("Asia/Tokyo"));
    settings.rollback();
    check(&settings, None);
    settings.begin();
    settings.set("timezone", "Asia/Tokyo");
    settings.commit();
    check(&settings, Some("Asia/Tokyo"));
}

#[test]
fn a_local_set_ends_with_its_transaction() {
    let mut settings = Settings::new(values(&[("timezone", "UTC")]));
    settings.set_local("timezone", "Asia/Tokyo");
    check(&settings, Some("UTC"));
    settings.begin();
    settings.set_local("timezone", "Asia/Tokyo");
    check(&settings, Some("Asia/Tokyo"));
    assert_eq!(settings.wanted(), values(&[("timezone", "UTC")]));
    settings.commit();
    check(&settings, Some("UTC"));
    settings.begin();
    settings.set_local("timezone", "Asia/Tokyo");
    settings.set("timezone", "Europe/Rome");
    check(&settings, Some("Europe/Rome"));
    settings.commit();
    check(&settings, Some("Europe/Rome"));
}

#[test]
fn savepoints_nest_and_names_may_repeat() {
    let mut settings = Settings::default();
    settings.begin();
    settings.set("timezone", "A");
    settings.savepoint("s");
    settings.set("timezone", "B");
    settings.savepoint("s");
    settings.set("timezone", "C");
    settings.rollback_to("s");
    check(&settings, Some("B"));
    settings.release("s");
    settings.rollback_to("s");
    check(&settings, Some("A"));
    settings.set("timezone", "D");
    settings.rollback_to("s");
    check(&settings, Some("A"));
    settings.rollback();
    check(&settings, None);
}

#[test]
fn a_connection_is_changed_only_where_it_differs() {
    let applied = values(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let wanted = values(&[("a", "1"), ("b", "5"), ("d", "4")]);
    assert_eq!(
        difference(&applied, &wanted),
        [Apply::Reset("c"), Apply::Set("b", "5"), Apply::Set("d", "4")]
    );
    assert!(difference(&applied, &applied).is_empty());
}

#[test]
fn an_assumed_role_is_left_first_and_taken_last() {
    let applied = values(&[("role", "bob"), ("a", "1")]);
    let wanted = values(&[("role", "eve"), ("session_authorization", "ann"), ("a", "2")]);
    assert_eq!(
        difference(&applied, &wanted),
        [
            Apply::Reset("role"),
            Apply::Set("a", "2"),
            Apply::Set("session_authorization", "ann"),
            Apply::Set("role", "eve")
        ]
    );
    let same_role = values(&[("role", "bob"), ("a", "2")]);
    assert_eq!(
        difference(&applied, &same_role),
        [
            Apply::Reset("role"),
            Apply::Set("a", "2"),
            Apply::Set("role", "bob")
        ]
    );
}
