//! Generated toolkits and their tools.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    random::SeededRandom,
    release::{Release, next_version},
    schema::{SchemaSize, SchemaSource, title},
    tool::{Content, Tool},
    toolkit::{INITIAL_VERSION, Toolkit, Version},
    words::{NOUNS, QUALIFIERS, VERBS},
};

/// A toolkit to add to a running simulator.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewToolkit {
    /// Its slug: lower-case letters, digits and underscores.
    pub(crate) slug: String,
    /// Its name; absent: made from the slug.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// How many generated tools it has.
    #[serde(default = "three_tools")]
    pub(crate) tools: usize,
    /// Whether its tools run without an account.
    #[serde(default)]
    pub(crate) no_auth: bool,
    /// Whether lists hide it unless asked for deprecated toolkits.
    #[serde(default)]
    pub(crate) deprecated: bool,
}

const fn three_tools() -> usize {
    3
}

impl NewToolkit {
    pub(super) fn has_valid_slug(&self) -> bool {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !self.slug.is_empty() && self.slug.bytes().all(valid)
    }

    pub(super) fn make(&self, now: Timestamp) -> Toolkit {
        let mut toolkit = empty_toolkit(&self.slug, 0, now);
        if let Some(name) = &self.name {
            toolkit.name.clone_from(name);
        }
        let schemes = if self.no_auth { NO_AUTH } else { MANAGED };
        toolkit.set_auth(schemes, &mut SeededRandom::new(0, &self.slug));
        toolkit.deprecated = self.deprecated;
        let tools = toolkit.make_tools(self.tools, SchemaSize::Usual);
        let names = [next_version(INITIAL_VERSION, now), INITIAL_VERSION.to_owned()];
        let versions = names.map(|name| Arc::new(Version::new(name, tools.clone())));
        toolkit.versions = versions.to_vec();
        toolkit
    }
}

/// Auth schemes, and those among them that Composio has an app of its own for.
pub(super) type Schemes = (&'static [&'static str], &'static [&'static str]);
pub(super) const NO_AUTH: Schemes = (&["NO_AUTH"], &[]);
pub(super) const MANAGED: Schemes = (&["OAUTH2"], &["OAUTH2"]);
pub(super) const OTHER_SCHEMES: [Schemes; 5] = [
    (&["API_KEY"], &[]),
    (&["OAUTH2"], &[]),
    (&["OAUTH2", "API_KEY"], &["OAUTH2"]),
    (&["BEARER_TOKEN"], &[]),
    (&["BASIC"], &[]),
];

/// A toolkit without tools, versions and authentication.
pub(super) fn empty_toolkit(slug: &str, seed: u64, created_at: Timestamp) -> Toolkit {
    let name = title(slug.trim_start_matches('_'));
    Toolkit {
        slug: slug.to_owned(),
        description: format!("{name} keeps the work of a team in one place and lets agents take part in it."),
        app_url: Some(format!(
            "https://{}.example.com",
            slug.trim_matches('_').replace('_', "-")
        )),
        name,
        categories: Vec::new(),
        auth_schemes: Vec::new(),
        composio_managed_auth_schemes: Vec::new(),
        base_url: None,
        get_current_user_endpoint: None,
        available_scopes: Vec::new(),
        created_at,
        updated_at: created_at,
        deprecated: false,
        versions: Vec::new(),
        seed,
        tools_made: 0,
    }
}

impl Toolkit {
    pub(super) fn set_auth(&mut self, (schemes, managed): Schemes, random: &mut SeededRandom) {
        let owned = |schemes: &[&str]| schemes.iter().map(|scheme| (*scheme).to_owned()).collect();
        self.auth_schemes = owned(schemes);
        self.composio_managed_auth_schemes = owned(managed);
        if schemes.contains(&"OAUTH2") {
            let nouns = (0..random.between(1, 4)).map(|_| random.pick(&NOUNS).to_lowercase());
            let nouns: Vec<_> = nouns.collect();
            let scopes = nouns
                .iter()
                .flat_map(|noun| [format!("{noun}:read"), format!("{noun}:write")]);
            self.available_scopes = scopes.collect();
        }
    }

    /// Tools whose slugs this toolkit never used before.
    pub(super) fn make_tools(&mut self, count: usize, size: SchemaSize) -> Vec<Arc<Tool>> {
        let mut tools = Vec::with_capacity(count);
        while tools.len() < count {
            let tool = self.nth_tool(self.tools_made, size);
            self.tools_made += 1;
            // A generated slug may exist already in a built-in toolkit.
            if self.versions_of(&tool.slug).is_empty() {
                tools.push(Arc::new(tool));
            }
        }
        tools
    }

    fn nth_tool(&self, index: usize, size: SchemaSize) -> Tool {
        // All verbs of one noun before the next noun, so that small toolkits look like one product.
        let plain = VERBS.len() * NOUNS.len();
        let start = SeededRandom::new(self.seed, &self.slug).between(0, NOUNS.len() - 1) * VERBS.len();
        let position = (start + index) % plain;
        let (verb, hints) = VERBS[position % VERBS.len()];
        let noun = NOUNS[position / VERBS.len()];
        let round = index / plain;
        let action = match QUALIFIERS.get(round) {
            Some(qualifier) => format!("{verb}_{noun}{qualifier}"),
            None => format!("{verb}_{noun}_{round}"),
        };
        let slug = format!("{}_{action}", self.slug.to_uppercase());
        let mut random = SeededRandom::new(self.seed, &slug);
        let mut tags: Vec<_> = hints.iter().map(|hint| (*hint).to_owned()).collect();
        if index < 3 {
            tags.push("important".to_owned());
        }
        let scopes = (!self.available_scopes.is_empty()).then(|| random.pick(&self.available_scopes).clone());
        let deprecated = random.percent(3);
        let source = SchemaSource {
            seed: random.number(),
            size,
        };
        Tool::new(
            slug,
            title(&action),
            tags,
            scopes.into_iter().collect(),
            deprecated,
            Content::Generated(source),
        )
    }

    /// With one more version, released at that time.
    pub(super) fn with_release(self, add: usize, change: usize, at: Timestamp) -> Self {
        let release = Release {
            add,
            change,
            ..Release::default()
        };
        match self.release(&release, at) {
            Ok((toolkit, _)) => toolkit,
            // A release is refused only if it changes more tools than there are.
            Err(_) => self,
        }
    }
}
