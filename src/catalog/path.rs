//! A search path: the schemas in which names without a schema are looked up.
//!
//! Made by the session from the `search_path` setting, read by `judge` and `find`. It holds what the setting says, with
//! `"$user"` put in; whether a schema exists, or may be used by the role, is not its business.

/// Effective search path in order, without the implicit `pg_catalog` and `pg_temp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Path {
    /// Schema names, folded as PostgreSQL folds them.
    pub schemas: Vec<Box<str>>,
}

impl Path {
    /// Reads the setting as PostgreSQL does: names apart by commas, unquoted ones in lower case, `"$user"` for the user.
    pub fn parse(search_path_setting: &str, user: &str) -> Path {
        let mut schemas = Vec::new();
        let mut rest = search_path_setting.trim_start();
        while !rest.is_empty() {
            let (name, after) = if let Some(quoted) = rest.strip_prefix('"') {
                quoted_name(quoted)
            } else {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_ascii_lowercase(), &rest[end..])
            };
            if name == "$user" {
                schemas.push(user.into());
            } else if !name.is_empty() {
                schemas.push(name.into());
            }
            let next = after.find(',').map_or("", |comma| &after[comma + 1..]);
            rest = next.trim_start();
        }
        Path { schemas }
    }
}

/// The name up to its closing quote, and what follows that.
fn quoted_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == '"') {
            name.push('"');
            chars.next();
        } else {
            return (name, &text[at + 1..]);
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn settings_are_read_as_postgresql_reads_them() {
        let table: &[(&str, &[&str])] = &[
            ("\"$user\", public", &["ann", "public"]),
            ("$user,public", &["ann", "public"]),
            ("Public , \"Mixed Case\"", &["public", "Mixed Case"]),
            ("\"a\"\"b\", \"c,d\",e", &["a\"b", "c,d", "e"]),
            ("", &[]),
            ("\"\"", &[]),
            ("pg_catalog", &["pg_catalog"]),
        ];
        for (setting, expected) in table {
            let path = Path::parse(setting, "ann");
            let got: Vec<&str> = path.schemas.iter().map(AsRef::as_ref).collect();
            assert_eq!(&got, expected, "{setting}");
        }
    }
}
