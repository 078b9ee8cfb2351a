//! The search path as name resolution uses it.

/// The schemas a bare name is looked for in, in order. `pg_catalog` comes first unless it is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SearchPath {
    schemas: Vec<Box<str>>,
}

impl SearchPath {
    /// Reads the value of the setting `search_path` for a role. `None` if the value is malformed.
    pub fn parse(setting: &str, role: &str) -> Option<SearchPath> {
        let mut schemas: Vec<Box<str>> = Vec::new();
        let mut rest = setting.trim();
        while !rest.is_empty() {
            let (name, after) = element(rest)?;
            let name = if name == "$user" {
                role.to_owned()
            } else {
                name
            };
            if !name.is_empty() && name != "pg_temp" {
                schemas.push(name.into());
            }
            rest = after.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(next) if !next.trim().is_empty() => next.trim_start(),
                Some(_) => return None,
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        if !schemas.iter().any(|schema| &**schema == "pg_catalog") {
            schemas.insert(0, "pg_catalog".into());
        }
        Some(SearchPath { schemas })
    }

    /// The path of the given schemas.
    pub fn of(schemas: &[&str]) -> SearchPath {
        SearchPath::parse(
            &schemas
                .iter()
                .map(|schema| format!("\"{schema}\""))
                .collect::<Vec<_>>()
                .join(","),
            "",
        )
        .unwrap_or_default()
    }

    /// The schemas in order, `pg_catalog` among them.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.schemas.iter().map(|schema| &**schema)
    }

    /// Where new objects go: the first schema that is not implied.
    pub fn creation(&self) -> Option<&str> {
        self.schemas().find(|schema| *schema != "pg_catalog")
    }
}

impl Default for SearchPath {
    /// PostgreSQL's own default without the role's schema.
    fn default() -> Self {
        SearchPath {
            schemas: vec!["pg_catalog".into(), "public".into()],
        }
    }
}

/// One name of the list and what follows it: quoted as it is, else folded to lower case.
fn element(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c == ',' || c.is_ascii_whitespace())
            .unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.is_empty()).then(|| (name.to_ascii_lowercase(), rest));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &quoted[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemas(setting: &str) -> Option<Vec<String>> {
        Some(
            SearchPath::parse(setting, "alice")?
                .schemas()
                .map(str::to_owned)
                .collect(),
        )
    }

    #[test]
    fn reads_what_postgresql_reads() {
        assert_eq!(
            schemas("\"$user\", public").unwrap(),
            ["pg_catalog", "alice", "public"]
        );
        assert_eq!(
            schemas("Public,\"My \"\"S\"").unwrap(),
            ["pg_catalog", "public", "My \"S"]
        );
        assert_eq!(
            schemas("public, pg_catalog").unwrap(),
            ["public", "pg_catalog"]
        );
        assert_eq!(schemas("").unwrap(), ["pg_catalog"]);
        assert_eq!(schemas("a,"), None);
        assert_eq!(schemas("\"a"), None);
    }
}
