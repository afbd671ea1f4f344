//! Hints that a client gives in comments: `/* pgladder: route=primary cache=off freshness=bounded 5s */`.
//!
//! Called by `analyze` with a text's comments. Invariant: a comment that begins with `pgladder:` is read in full, and what is
//! not understood is returned as unknown, so that a typing error is answered and never silent. The later hint wins.

use super::statement::{Hints, RouteHint};

/// The hints of a text's comments, in their order.
pub(crate) fn hints(comments: &[&str]) -> Hints {
    let mut hints = Hints::default();
    for comment in comments {
        let body = comment
            .strip_prefix("--")
            .or_else(|| {
                comment
                    .strip_prefix("/*")
                    .and_then(|rest| rest.strip_suffix("*/"))
            })
            .unwrap_or("")
            .trim();
        if let Some(list) = body.strip_prefix("pgladder:") {
            read(list, &mut hints);
        }
    }
    hints
}

fn read(list: &str, hints: &mut Hints) {
    let words: Vec<&str> = list
        .split([' ', '\t', '\n', '\r', ',', ';'])
        .filter(|w| !w.is_empty())
        .collect();
    let mut at = 0;
    while at < words.len() {
        let word = words[at];
        at += 1;
        match word.split_once('=') {
            Some(("route", "primary")) => hints.route = Some(RouteHint::Primary),
            Some(("route", "replica")) => hints.route = Some(RouteHint::Replica),
            Some(("cache", "off")) => hints.cache = Some(false),
            Some(("cache", "on")) => hints.cache = Some(true),
            Some(("freshness", level)) if !level.is_empty() => {
                // `bounded 5s` is two words: what follows without a `=` belongs to the level.
                let mut text = level.to_owned();
                while at < words.len() && !words[at].contains('=') {
                    text.push(' ');
                    text.push_str(words[at]);
                    at += 1;
                }
                hints.freshness = Some(text.into());
            }
            _ => hints.unknown.push(word.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(comment: &str, want: &Hints) {
        assert_eq!(&hints(&[comment]), want, "{comment}");
    }

    #[test]
    fn comments() {
        check("/* nothing for us */", &Hints::default());
        check(
            "/*pgladder: route=primary*/",
            &Hints {
                route: Some(RouteHint::Primary),
                ..Hints::default()
            },
        );
        check(
            "-- pgladder: route=replica cache=off",
            &Hints {
                route: Some(RouteHint::Replica),
                cache: Some(false),
                ..Hints::default()
            },
        );
        check(
            "/* pgladder: freshness=bounded 5s cache=on */",
            &Hints {
                freshness: Some("bounded 5s".into()),
                cache: Some(true),
                ..Hints::default()
            },
        );
        check(
            "/* pgladder: rout=primary cache=maybe x */",
            &Hints {
                unknown: vec!["rout=primary".into(), "cache=maybe".into(), "x".into()],
                ..Hints::default()
            },
        );
    }
}
