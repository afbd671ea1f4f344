//! The file of users in the form of PgBouncer's `userlist.txt`: `"name" "password or verifier"` on each line.
//!
//! Read by the section on authentication, again at each reload. A double quote within a text is written twice, and a line that
//! begins with `;` is a comment. Invariant: a problem names the line, and never what stands on it.

use zeroize::Zeroizing;

use super::auth::{Password, UserConfig, UserSecret, is_verifier};

/// The users of a file's text, or what is wrong with which line.
pub(super) fn parse(text: &str) -> Result<Vec<UserConfig>, String> {
    let mut users: Vec<UserConfig> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let problem = |problem: &str| format!("line {}: {problem}", at + 1);
        let user = user(line).map_err(problem)?;
        if users.iter().any(|known| known.name == user.name) {
            return Err(problem("this user is named twice"));
        }
        users.push(user);
    }
    Ok(users)
}

fn user(line: &str) -> Result<UserConfig, &'static str> {
    const FORM: &str = "not of the form \"name\" \"password or verifier\"";
    let (name, rest) = quoted(line).ok_or(FORM)?;
    let (secret, _) = quoted(rest.trim_start()).ok_or(FORM)?;
    if name.is_empty() || secret.is_empty() {
        return Err("the name or the secret is empty");
    }
    Ok(UserConfig {
        name: name.to_string(),
        secret: self::secret(secret)?,
    })
}

/// What a text is: a verifier tells itself apart, anything else is a password.
fn secret(text: Zeroizing<String>) -> Result<UserSecret, &'static str> {
    let is_md5 = |digits: &str| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.starts_with("SCRAM-SHA-256$") {
        let verifier = is_verifier(&text).then(|| UserSecret::Verifier(Password(text)));
        return verifier.ok_or("the verifier is not of the form that pg_authid has");
    }
    if text.strip_prefix("md5").is_some_and(is_md5) {
        return Err("an md5 hash cannot be used: clients log in with SCRAM-SHA-256");
    }
    Ok(UserSecret::Password(Password(text)))
}

/// The text between double quotes at the start, and what follows.
fn quoted(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text.strip_prefix('"')?;
    loop {
        let (before, after) = rest.split_once('"')?;
        plain.push_str(before);
        match after.strip_prefix('"') {
            Some(further) => {
                plain.push('"');
                rest = further;
            }
            None => return Some((plain, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<(String, bool)>, String> {
        let users = parse(text)?;
        let is_password = |user: &UserConfig| matches!(user.secret, UserSecret::Password(_));
        Ok(users
            .iter()
            .map(|user| (user.name.clone(), is_password(user)))
            .collect())
    }

    #[test]
    fn users_are_read_as_pgbouncer_writes_them() {
        let verifier = "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA";
        let text = format!("; people\n\n\"ann\" \"hunter2\"\n  \"bob \"\"b\"\"\"\t\"{verifier}\" \"\"\n");
        let wanted = vec![("ann".to_owned(), true), ("bob \"b\"".to_owned(), false)];
        assert_eq!(names(&text), Ok(wanted));
        assert_eq!(names(""), Ok(Vec::new()));
    }

    #[test]
    fn a_problem_names_its_line_and_no_secret() {
        let check = |text: &str, wanted: &str| {
            let problem = names(text).expect_err(text);
            assert!(problem.starts_with(wanted), "{text}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        };
        check("\"ann\" \"x\"\nann hunter2", "line 2: not of the form");
        check("\"ann\" \"hunter2", "line 1: not of the form");
        check("\"ann\" \"x\"\n\"ann\" \"y\"", "line 2: this user is named twice");
        check("\"ann\" \"\"", "line 1: the name or the secret is empty");
        check(
            "\"ann\" \"md5d41d8cd98f00b204e9800998ecf8427e\"",
            "line 1: an md5 hash",
        );
        check("\"ann\" \"SCRAM-SHA-256$hunter2\"", "line 1: the verifier");
    }
}
