//! The ConfigMaps of a cache: listed without their content, read one at a time, written by server-side apply.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use strum::IntoStaticStr;

use crate::api::{ComposioSchemaCache, GROUP, MANAGED_BY, MANAGED_BY_LABEL, Reason};
use crate::runtime::failure::Failure;
use crate::runtime::owned::{Children, Claim, Ownership};
use crate::schemas::names;
use crate::schemas::pack::{Part, checksum};
use crate::schemas::record::{CACHE_LABEL, CHECKSUM, ROLE_LABEL, TOOLKIT_LABEL};

/// ConfigMaps per page of a list: a few hundred kilobytes of metadata.
const PAGE: u32 = 500;

/// A ConfigMap without its content.
pub type Meta = PartialObjectMeta<ConfigMap>;

/// What a ConfigMap is for; the label value is the variant in lower case.
#[derive(Clone, Copy, Debug, Eq, IntoStaticStr, PartialEq)]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// The manifest.
    Manifest,
    /// A toolkit: what is known of it, and its tools or the first of them.
    Toolkit,
    /// More tools of a toolkit.
    Continuation,
}

/// The ConfigMaps of one cache.
pub struct ConfigMaps<'a> {
    children: Children<'a, ComposioSchemaCache, ConfigMap>,
}

impl<'a> ConfigMaps<'a> {
    /// The ConfigMaps of this cache.
    pub fn new(client: &Client, owner: &'a ComposioSchemaCache) -> Self {
        let namespace = owner.namespace().unwrap_or_default();
        Self {
            children: Children {
                api: Api::namespaced(client.clone(), &namespace),
                owner,
                // Of this very cache: where two caches name the same ConfigMap, the API server sees two managers.
                manager: format!("{GROUP}/{}", owner.uid().unwrap_or_default()),
            },
        }
    }

    /// Whether a ConfigMap of that name exists that does not belong to this cache, or an earlier one of its name.
    pub async fn is_taken(&self, name: &str) -> kube::Result<bool> {
        let found = self.children.api.get_metadata_opt(name).await?;
        Ok(found.is_some_and(|found| self.children.ownership(&found.metadata) == Ownership::NotOwned))
    }

    /// All that have this cache's label and are its own.
    pub async fn list(&self) -> kube::Result<Vec<Meta>> {
        let mut found = Vec::new();
        let mut parameters = ListParams::default()
            .labels(&format!(
                "{CACHE_LABEL}={}",
                names::label(&self.children.owner.name_any())
            ))
            .limit(PAGE);
        loop {
            let page = self.children.api.list_metadata(&parameters).await?;
            let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
            found.extend(
                page.items
                    .into_iter()
                    .filter(|meta| self.children.ownership(&meta.metadata) == Ownership::Owned),
            );
            match next {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// One with its content; None if it does not exist or is not owned.
    pub async fn read(&self, name: &str) -> kube::Result<Option<(ObjectMeta, Part)>> {
        let found = self.children.api.get_opt(name).await?;
        Ok(found
            .filter(|map| self.children.ownership(&map.metadata) == Ownership::Owned)
            .map(|map| {
                let part = content(&map);
                (map.metadata, part)
            }))
    }

    /// Writes a ConfigMap, and returns the version it then has. One that is not owned is left alone. `exists`: there was
    /// one when they were listed.
    pub async fn write(
        &self,
        role: Role,
        toolkit: Option<&str>,
        part: &Part,
        exists: bool,
        mut annotations: BTreeMap<String, String>,
    ) -> Result<Option<String>, Failure> {
        annotations.insert(CHECKSUM.to_owned(), checksum(part, &annotations));
        let mut map = self.config_map(part, self.labels(role, toolkit), annotations);
        let claim = self.claim(&map, !exists).await?;
        // One that is made is complete from the beginning: no reader mounts an empty one, and policies see its labels.
        if let Some(created) = claim.created {
            return self.without_foreign_keys(part, created).await;
        }
        // The very object that was read, not one of the same name made since.
        map.metadata.uid.clone_from(&claim.metadata.uid);
        let owned = self.children.own_created_fields(&claim.metadata).await;
        owned.map_err(|error| Failure::from(&error))?;
        let written = match self.children.apply(&map).await {
            // Somebody made it immutable, which cannot be taken back.
            Err(kube::Error::Api(status))
                if status.code == 422 && status.message.contains("is immutable") =>
            {
                let deleted = self.children.delete(&claim.metadata).await;
                deleted.map_err(|error| Failure::from(&error))?;
                map.metadata.uid = None;
                return match self.claim(&map, true).await?.created {
                    Some(created) => self.without_foreign_keys(part, created).await,
                    None => Err(conflict(&part.name)),
                };
            }
            written => written,
        };
        match written {
            Ok(written) => self.without_foreign_keys(part, written).await,
            Err(error) => Err(Failure::from(&error)),
        }
    }

    async fn claim(&self, map: &ConfigMap, is_new: bool) -> Result<Claim<ConfigMap>, Failure> {
        let claim = self.children.claim(map, is_new).await;
        claim.map_err(|error| error.into_failure(|| conflict(&map.name_any())))
    }

    /// The labels that a ConfigMap has.
    pub fn labels(&self, role: Role, toolkit: Option<&str>) -> BTreeMap<String, String> {
        let mut labels = self.children.owner.spec.output.labels.clone();
        labels.extend([
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (
                CACHE_LABEL.to_owned(),
                names::label(&self.children.owner.name_any()),
            ),
            (ROLE_LABEL.to_owned(), <&str>::from(role).to_owned()),
        ]);
        labels.extend(toolkit.map(|slug| (TOOLKIT_LABEL.to_owned(), names::label(slug))));
        labels
    }

    fn config_map(
        &self,
        part: &Part,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    ) -> ConfigMap {
        let binary = part
            .binary_data
            .iter()
            .map(|(key, bytes)| (key.clone(), ByteString(bytes.clone())));
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(part.name.clone()),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: self.children.owner_references(),
                ..ObjectMeta::default()
            },
            data: Some(part.data.clone()).filter(|data| !data.is_empty()),
            binary_data: Some(binary.collect::<BTreeMap<_, _>>()).filter(|data| !data.is_empty()),
            ..ConfigMap::default()
        }
    }

    /// Takes out keys that somebody else put in: an apply leaves them, and a reader could take them for ours.
    async fn without_foreign_keys(&self, part: &Part, written: ConfigMap) -> Result<Option<String>, Failure> {
        let keys = |ours: &dyn Fn(&String) -> bool, theirs: Vec<&String>| {
            let foreign = theirs.into_iter().filter(|key| !ours(key));
            foreign
                .map(|key| (key.clone(), Value::Null))
                .collect::<serde_json::Map<_, _>>()
        };
        let data = keys(
            &|key| part.data.contains_key(key),
            written.data.iter().flatten().map(|(key, _)| key).collect(),
        );
        let binary = keys(
            &|key| part.binary_data.contains_key(key),
            written.binary_data.iter().flatten().map(|(key, _)| key).collect(),
        );
        if data.is_empty() && binary.is_empty() {
            return Ok(written.metadata.resource_version);
        }
        let patch = json!({ "data": data, "binaryData": binary });
        let parameters = PatchParams {
            field_manager: Some(self.children.manager.clone()),
            ..PatchParams::default()
        };
        let cleaned = self
            .children
            .api
            .patch_metadata(&part.name, &parameters, &Patch::Merge(patch))
            .await;
        cleaned
            .map(|cleaned| cleaned.metadata.resource_version)
            .map_err(|error| Failure::from(&error))
    }

    /// Deletes the one with that name if it is owned.
    pub async fn delete(&self, name: &str) -> kube::Result<()> {
        self.children.delete_named(name).await
    }
}

/// The caches whose ConfigMaps change, in whatever way.
pub fn changes(
    api: &Api<PartialObjectMeta<ConfigMap>>,
) -> BoxStream<'static, Result<ObjectRef<ComposioSchemaCache>, watcher::Error>> {
    watcher::watcher(api.clone(), watcher::Config::default().labels(CACHE_LABEL))
        .default_backoff()
        .touched_objects()
        .try_filter_map(|map| {
            let namespace = map.metadata.namespace.clone().unwrap_or_default();
            let mut owners = map.metadata.owner_references.iter().flatten();
            let owner = owners.find_map(|owner| ObjectRef::from_owner_ref(Some(&namespace), owner, ()));
            // Somebody may have removed the owner reference.
            let label = || Some(ObjectRef::new(map.labels().get(CACHE_LABEL)?).within(&namespace));
            future::ready(Ok(owner.or_else(label)))
        })
        .boxed()
}

/// The content of a ConfigMap.
pub fn content(map: &ConfigMap) -> Part {
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, bytes)| (key.clone(), bytes.0.clone()));
    Part {
        name: map.name_any(),
        data: map.data.clone().unwrap_or_default(),
        binary_data: binary.collect(),
    }
}

/// What a person has to know about a name that is taken.
pub fn conflict(name: &str) -> Failure {
    Failure::stalled(
        Reason::ConfigMapConflict,
        format!(
            "ConfigMap {name} exists and does not belong to this cache; rename or delete it, or create a \
             ComposioSchemaCache with another spec.output.namePrefix instead of this one"
        ),
    )
}
