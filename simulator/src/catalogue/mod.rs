//! The toolkits and tools that exist: a small built-in catalogue with real slugs, a generated one of any size beside
//! it, and what changes them while the simulator runs.

mod built_in;
mod dice;
mod generated;
mod making;
mod release;
mod schema;
mod tool;
mod toolkit;
mod words;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use jiff::Timestamp;

pub use generated::{GIANT_TOOLKIT, GeneratedCatalogue, HUGE_TOOL, HUGE_TOOL_TOOLKIT};
pub use making::NewToolkit;
pub use release::{CatalogueError, Release, Released, Touch};
pub(crate) use tool::Tool;
pub(crate) use toolkit::{INITIAL_VERSION, Toolkit, Version};

/// Every toolkit and tool of a simulator. What is handed out does not change any more.
#[derive(Debug)]
pub(crate) struct Catalogue(RwLock<Stock>);

#[derive(Debug, Default)]
struct Stock {
    /// Most used first.
    toolkits: Vec<Arc<Toolkit>>,
    /// Toolkit slug to position.
    positions: HashMap<String, usize>,
    /// Slug of each tool, in whatever version, to its toolkit's slug.
    homes: HashMap<String, Arc<str>>,
}

impl Stock {
    fn toolkit(&self, slug: &str) -> Option<&Arc<Toolkit>> {
        Some(&self.toolkits[*self.positions.get(slug)?])
    }

    /// Adds it behind the others.
    fn add(&mut self, toolkit: Toolkit) -> Arc<Toolkit> {
        for version in &toolkit.versions {
            self.find_home(version, &toolkit.slug);
        }
        let toolkit = Arc::new(toolkit);
        self.positions.insert(toolkit.slug.clone(), self.toolkits.len());
        self.toolkits.push(Arc::clone(&toolkit));
        toolkit
    }

    fn find_home(&mut self, version: &Version, toolkit: &str) {
        let home: Arc<str> = toolkit.into();
        for tool in version.tools() {
            if !self.homes.contains_key(&tool.slug) {
                self.homes.insert(tool.slug.clone(), Arc::clone(&home));
            }
        }
    }

    fn remove(&mut self, position: usize) {
        let gone = self.toolkits.remove(position);
        self.homes.retain(|_, home| **home != *gone.slug);
        let slugs = self.toolkits.iter().map(|toolkit| toolkit.slug.clone());
        self.positions = slugs.zip(0..).collect();
    }
}

impl Catalogue {
    /// The built-in toolkits, and the generated ones behind them.
    pub(crate) fn new(generated: Option<&GeneratedCatalogue>) -> Result<Self, serde_json::Error> {
        let mut stock = Stock::default();
        for toolkit in built_in::toolkits()? {
            stock.add(toolkit);
        }
        if let Some(generated) = generated {
            let taken = stock.positions.keys().cloned().collect();
            for toolkit in generated.make(taken) {
                stock.add(toolkit);
            }
        }
        Ok(Self(RwLock::new(stock)))
    }

    fn read(&self) -> RwLockReadGuard<'_, Stock> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Stock> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most used first.
    pub(crate) fn toolkits(&self) -> Vec<Arc<Toolkit>> {
        self.read().toolkits.clone()
    }

    /// By slug in any case: requests spell slugs both ways.
    pub(crate) fn toolkit(&self, slug: &str) -> Option<Arc<Toolkit>> {
        self.read().toolkit(&slug.to_ascii_lowercase()).cloned()
    }

    /// The toolkit that has, or had, the tool of exactly that slug.
    pub(crate) fn home_of(&self, tool: &str) -> Option<Arc<Toolkit>> {
        let stock = self.read();
        stock.toolkit(stock.homes.get(tool)?).cloned()
    }

    /// Adds a toolkit behind the others.
    pub(crate) fn add(&self, new: &NewToolkit, now: Timestamp) -> Result<Arc<Toolkit>, CatalogueError> {
        if !new.has_valid_slug() {
            return Err(CatalogueError::BadSlug(new.slug.clone()));
        }
        let mut stock = self.write();
        if stock.positions.contains_key(&new.slug) {
            return Err(CatalogueError::Exists(new.slug.clone()));
        }
        Ok(stock.add(new.make(now)))
    }

    /// Takes a toolkit away with everything it had.
    pub(crate) fn remove(&self, slug: &str) -> Result<(), CatalogueError> {
        let mut stock = self.write();
        let position = stock.positions.get(slug).copied();
        stock.remove(position.ok_or_else(|| CatalogueError::NoToolkit(slug.to_owned()))?);
        Ok(())
    }

    /// Makes a new version of a toolkit.
    pub(crate) fn release(
        &self,
        slug: &str,
        release: &Release,
        now: Timestamp,
    ) -> Result<Released, CatalogueError> {
        self.change(slug, |toolkit| toolkit.release(release, now))
    }

    /// Edits a toolkit without a new version. Returns it afterwards.
    pub(crate) fn touch(&self, slug: &str, touch: &Touch, now: Timestamp) -> Result<Toolkit, CatalogueError> {
        self.change(slug, |toolkit| {
            let touched = toolkit.touched(touch, now);
            Ok((touched.clone(), touched))
        })
    }

    fn change<T>(
        &self,
        slug: &str,
        change: impl FnOnce(&Toolkit) -> Result<(Toolkit, T), CatalogueError>,
    ) -> Result<T, CatalogueError> {
        let mut stock = self.write();
        let position = stock.positions.get(slug).copied();
        let position = position.ok_or_else(|| CatalogueError::NoToolkit(slug.to_owned()))?;
        let (changed, result) = change(&stock.toolkits[position])?;
        // No change alters earlier versions, so their tools are at home already.
        stock.find_home(changed.latest(), slug);
        stock.toolkits[position] = Arc::new(changed);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn slugs(catalogue: &Catalogue) -> Vec<String> {
        let toolkits = catalogue.toolkits();
        toolkits.iter().map(|toolkit| toolkit.slug.clone()).collect()
    }

    #[test]
    fn the_built_in_catalogue_is_consistent() {
        let catalogue = Catalogue::new(None).unwrap();
        assert_eq!(
            slugs(&catalogue),
            ["github", "slack", "reddit", "hackernews", "codeinterpreter"]
        );
        for toolkit in catalogue.toolkits() {
            let versions: Vec<_> = toolkit.version_names().collect();
            assert_eq!(versions.last(), Some(&INITIAL_VERSION), "{}", toolkit.slug);
            assert!(
                versions.is_sorted_by(|a, b| a > b),
                "{} newest first",
                toolkit.slug
            );
            assert!(!toolkit.latest().tools().is_empty());
            let prefix = format!("{}_", toolkit.slug.to_uppercase());
            for tool in toolkit.latest().tools() {
                assert!(tool.slug.starts_with(&prefix), "{}", tool.slug);
                let input = tool.input();
                assert!(
                    input
                        .required
                        .iter()
                        .all(|name| input.properties.contains_key(name)),
                    "{} requires what it describes",
                    tool.slug
                );
                let home = catalogue.home_of(&tool.slug).unwrap();
                assert_eq!(home.slug, toolkit.slug);
            }
        }
    }

    #[test]
    fn versions_resolve() {
        let catalogue = Catalogue::new(None).unwrap();
        let reddit = catalogue.toolkit("REDDIT").unwrap();
        let resolve = |wanted| reddit.resolve(wanted).map(|version| version.name.as_str());
        assert_eq!(resolve("latest"), Some("20260424_00"));
        assert_eq!(resolve("00000000_00"), Some("00000000_00"));
        assert_eq!(resolve("19990101_00"), None);
    }

    #[test]
    fn list_and_detail_differ_as_documented() {
        let catalogue = Catalogue::new(None).unwrap();
        let hackernews = catalogue.toolkit("hackernews").unwrap();
        let item = hackernews.list_item();
        assert_eq!(item["no_auth"], true);
        assert_eq!(item["meta"]["categories"][0]["id"], "news");
        assert!(item["meta"].get("available_versions").is_none());
        let detail = hackernews.detail(hackernews.latest());
        assert!(detail.get("no_auth").is_none() && detail.get("auth_schemes").is_none());
        assert_eq!(detail["meta"]["categories"][0]["slug"], "news");
        assert_eq!(detail["meta"]["available_versions"][0], detail["meta"]["version"]);
        assert_eq!(detail["auth_config_details"][0]["mode"], "NO_AUTH");
    }

    #[test]
    fn toolkits_come_and_go() {
        let catalogue = Catalogue::new(None).unwrap();
        let before = catalogue.toolkit("slack").unwrap();
        let new = NewToolkit::new("acme");
        let added = catalogue.add(&new, NOW).unwrap();
        assert_eq!(slugs(&catalogue).last().unwrap(), "acme");
        assert_eq!(added.latest().tools().len(), 3);
        assert_eq!(added.latest().name, "20270115_00");
        assert_eq!(
            catalogue.add(&new, NOW).unwrap_err(),
            CatalogueError::Exists("acme".to_owned())
        );
        for slug in ["", "Acme", "ac-me"] {
            assert!(catalogue.add(&NewToolkit::new(slug), NOW).is_err(), "{slug:?}");
        }

        catalogue.remove("slack").unwrap();
        assert!(catalogue.toolkit("slack").is_none());
        assert!(catalogue.home_of(&before.latest().tools()[0].slug).is_none());
        assert_eq!(
            catalogue.toolkit("acme").unwrap().slug,
            "acme",
            "positions are kept right"
        );
        assert_eq!(
            catalogue.remove("slack").unwrap_err(),
            CatalogueError::NoToolkit("slack".to_owned())
        );
        assert!(
            !before.latest().tools().is_empty(),
            "who looked before still sees it"
        );
    }

    #[test]
    fn tools_that_were_removed_or_added_have_a_home() {
        let catalogue = Catalogue::new(None).unwrap();
        let release = Release {
            add: 1,
            remove: 1,
            ..Release::default()
        };
        let released = catalogue.release("reddit", &release, NOW).unwrap();
        for slug in released.added.iter().chain(&released.removed) {
            assert_eq!(catalogue.home_of(slug).unwrap().slug, "reddit", "{slug}");
        }
    }
}
