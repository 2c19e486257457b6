//! The toolkits and tools that exist: a small built-in catalogue with real slugs, a generated one of any size beside
//! it, and what changes them while the simulator runs.

mod built_in;
mod generated;
mod new_toolkit;
mod random;
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
pub(crate) use new_toolkit::NewToolkit;
pub use release::{CatalogueError, Release, Released, Touch};
pub(crate) use tool::Tool;
pub(crate) use toolkit::{INITIAL_VERSION, Toolkit, Version};

/// Every toolkit and tool of a simulator. The values it returns never change; changes replace them.
#[derive(Debug)]
pub(crate) struct Catalogue(RwLock<Contents>);

#[derive(Debug, Default)]
struct Contents {
    /// Most used first.
    toolkits: Vec<Arc<Toolkit>>,
    /// Toolkit slug to position.
    positions: HashMap<String, usize>,
    /// Slug of each tool, in whatever version, to its toolkit's slug.
    toolkit_by_tool: HashMap<String, Arc<str>>,
}

impl Contents {
    fn toolkit(&self, slug: &str) -> Option<&Arc<Toolkit>> {
        Some(&self.toolkits[*self.positions.get(slug)?])
    }

    /// Adds it behind the others.
    fn add(&mut self, toolkit: Toolkit) -> Arc<Toolkit> {
        for version in &toolkit.versions {
            self.index_tools(version, &toolkit.slug);
        }
        let toolkit = Arc::new(toolkit);
        self.positions.insert(toolkit.slug.clone(), self.toolkits.len());
        self.toolkits.push(Arc::clone(&toolkit));
        toolkit
    }

    fn index_tools(&mut self, version: &Version, toolkit: &str) {
        let home: Arc<str> = toolkit.into();
        for tool in version.tools() {
            if !self.toolkit_by_tool.contains_key(&tool.slug) {
                self.toolkit_by_tool.insert(tool.slug.clone(), Arc::clone(&home));
            }
        }
    }

    fn remove(&mut self, position: usize) {
        let gone = self.toolkits.remove(position);
        self.toolkit_by_tool.retain(|_, home| **home != *gone.slug);
        let slugs = self.toolkits.iter().map(|toolkit| toolkit.slug.clone());
        self.positions = slugs.zip(0..).collect();
    }
}

impl Catalogue {
    /// The built-in toolkits, and the generated ones behind them.
    pub(crate) fn new(generated: Option<&GeneratedCatalogue>) -> Result<Self, serde_json::Error> {
        let mut contents = Contents::default();
        for toolkit in built_in::toolkits()? {
            contents.add(toolkit);
        }
        if let Some(generated) = generated {
            let taken = contents.positions.keys().cloned().collect();
            for toolkit in generated.make(taken) {
                contents.add(toolkit);
            }
        }
        Ok(Self(RwLock::new(contents)))
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
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
    pub(crate) fn toolkit_of_tool(&self, tool: &str) -> Option<Arc<Toolkit>> {
        let contents = self.read();
        contents.toolkit(contents.toolkit_by_tool.get(tool)?).cloned()
    }

    /// Adds a toolkit behind the others.
    pub(crate) fn add(&self, new: &NewToolkit, now: Timestamp) -> Result<Arc<Toolkit>, CatalogueError> {
        if !new.has_valid_slug() {
            return Err(CatalogueError::BadSlug(new.slug.clone()));
        }
        let mut contents = self.write();
        if contents.positions.contains_key(&new.slug) {
            return Err(CatalogueError::Exists(new.slug.clone()));
        }
        Ok(contents.add(new.make(now)))
    }

    /// Takes a toolkit away with everything it had.
    pub(crate) fn remove(&self, slug: &str) -> Result<(), CatalogueError> {
        let mut contents = self.write();
        let position = contents.positions.get(slug).copied();
        contents.remove(position.ok_or_else(|| CatalogueError::NoToolkit(slug.to_owned()))?);
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
        let mut contents = self.write();
        let position = contents.positions.get(slug).copied();
        let position = position.ok_or_else(|| CatalogueError::NoToolkit(slug.to_owned()))?;
        let (changed, result) = change(&contents.toolkits[position])?;
        // No change alters earlier versions, whose tools are indexed already.
        contents.index_tools(changed.latest(), slug);
        contents.toolkits[position] = Arc::new(changed);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_consistent() {
        for toolkit in Catalogue::new(None).unwrap().toolkits() {
            let versions: Vec<_> = toolkit.version_names().collect();
            assert_eq!(versions.last(), Some(&INITIAL_VERSION), "{}", toolkit.slug);
            assert!(versions.is_sorted_by(|a, b| a > b), "{}", toolkit.slug);
            let prefix = format!("{}_", toolkit.slug.to_uppercase());
            for tool in toolkit.latest().tools() {
                assert!(tool.slug.starts_with(&prefix), "{}", tool.slug);
                let input = tool.input();
                let described = |name: &String| input.properties.contains_key(name);
                assert!(input.required.iter().all(described), "{}", tool.slug);
            }
        }
    }
}
