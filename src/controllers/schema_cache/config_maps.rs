//! The ConfigMaps of a cache: listed without their content, read one at a time, written by server-side apply.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::api::{ComposioSchemaCache, MANAGED_BY, MANAGED_BY_LABEL};
use crate::controllers::failure::{Failure, Reason};
use crate::schemas::names;
use crate::schemas::pack::{Part, checksum};
use crate::schemas::record::{CACHE_LABEL, CHECKSUM, ROLE_LABEL, TOOLKIT_LABEL};

/// ConfigMaps per page of a listing: a few hundred kilobytes of metadata.
const PAGE: u32 = 500;

/// A ConfigMap without its content.
pub type Meta = PartialObjectMeta<ConfigMap>;

/// What a ConfigMap is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The manifest.
    Manifest,
    /// A toolkit: what is known of it, and its tools or the first of them.
    Toolkit,
    /// More tools of a toolkit.
    Continuation,
}

impl Role {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Toolkit => "toolkit",
            Self::Continuation => "continuation",
        }
    }
}

/// Whose ConfigMap it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ownership {
    /// This cache's.
    Ours,
    /// An earlier cache's of the same name; the garbage collector is about to remove it.
    Leftover,
    /// Somebody else's.
    Foreign,
}

/// A ConfigMap that this cache may write.
struct Claim {
    metadata: ObjectMeta,
    /// It was made by this very process, a moment ago, and there is nothing in it.
    is_empty: bool,
}

/// The ConfigMaps of one cache.
pub struct ConfigMaps<'a> {
    /// The namespace's ConfigMaps.
    pub api: Api<ConfigMap>,
    /// The cache.
    pub owner: &'a ComposioSchemaCache,
}

impl ConfigMaps<'_> {
    fn uid(&self) -> &str {
        self.owner.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Field manager of this very cache: where two caches name the same ConfigMap, the API server sees two managers.
    fn manager(&self) -> String {
        format!("composio-operator.dev/{}", self.uid())
    }

    /// Whose ConfigMap it is.
    pub fn ownership(&self, metadata: &ObjectMeta) -> Ownership {
        let controller = metadata
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        match controller {
            Some(controller) if controller.uid == self.uid() => Ownership::Ours,
            // Names are unique: the cache with the other uid is gone.
            Some(controller) if self.is_same_name(controller) => Ownership::Leftover,
            _ => Ownership::Foreign,
        }
    }

    fn is_same_name(&self, reference: &OwnerReference) -> bool {
        reference.api_version == ComposioSchemaCache::api_version(&())
            && reference.kind == ComposioSchemaCache::kind(&())
            && reference.name == self.owner.name_any()
    }

    /// All that carry this cache's label and are its own.
    pub async fn list(&self) -> kube::Result<Vec<Meta>> {
        let mut found = Vec::new();
        let mut parameters = ListParams::default()
            .labels(&format!("{CACHE_LABEL}={}", names::label(&self.owner.name_any())))
            .limit(PAGE);
        loop {
            let page = self.api.list_metadata(&parameters).await?;
            let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
            found.extend(
                page.items
                    .into_iter()
                    .filter(|meta| self.ownership(&meta.metadata) == Ownership::Ours),
            );
            match next {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// One with its content; None if it does not exist or is not ours.
    pub async fn read(&self, name: &str) -> kube::Result<Option<(ObjectMeta, Part)>> {
        let found = self.api.get_opt(name).await?;
        Ok(found
            .filter(|map| self.ownership(&map.metadata) == Ownership::Ours)
            .map(|map| {
                let part = content(&map);
                (map.metadata, part)
            }))
    }

    /// Writes a ConfigMap, and returns the version it then has. One that is not ours is left alone. `seen`: there was one
    /// when they were listed.
    pub async fn write(
        &self,
        role: Role,
        toolkit: Option<&str>,
        part: &Part,
        seen: bool,
        mut annotations: BTreeMap<String, String>,
    ) -> Result<Option<String>, Failure> {
        let known = if seen {
            self.claim(&part.name).await?
        } else {
            match self.create(&part.name).await {
                Err(failure) if failure.reason == Reason::ConfigMapConflict => self.claim(&part.name).await?,
                created => created?,
            }
        };
        annotations.insert(CHECKSUM.to_owned(), checksum(part, &annotations));
        let labels = self.labels(role, toolkit);
        let map = self.manifest_of(part, labels, annotations, &known.metadata);
        if known.is_empty
            && let Some(filled) = self.fill(&map, &known.metadata).await?
        {
            return Ok(filled.resource_version);
        }
        let parameters = PatchParams::apply(&self.manager()).force();
        let written = self.api.patch(&part.name, &parameters, &Patch::Apply(&map)).await;
        let written = match written {
            // Somebody made it immutable, which cannot be taken back.
            Err(kube::Error::Api(status))
                if status.code == 422 && status.message.contains("is immutable") =>
            {
                let deleted = self.delete(&known.metadata).await;
                deleted.map_err(|error| Failure::from(&error))?;
                let mut anew = map.clone();
                anew.metadata.uid = self.create(&part.name).await?.metadata.uid;
                self.api
                    .patch(&part.name, &parameters, &Patch::Apply(&anew))
                    .await
            }
            written => written,
        };
        match written {
            Ok(written) => self.without_foreign_keys(part, written).await,
            Err(error) => Err(Failure::from(&error)),
        }
    }

    /// Writes one that was just made and that nobody has touched since, so that its content need not come back to be
    /// looked at: only an admission webhook for updates could have added something, which stays until the next change. None:
    /// somebody has touched it.
    async fn fill(&self, map: &ConfigMap, made: &ObjectMeta) -> Result<Option<ObjectMeta>, Failure> {
        let mut untouched = map.clone();
        untouched
            .metadata
            .resource_version
            .clone_from(&made.resource_version);
        let parameters = PatchParams::apply(&self.manager()).force();
        let filled = self
            .api
            .patch_metadata(&map.name_any(), &parameters, &Patch::Apply(&untouched))
            .await;
        match filled {
            Ok(filled) => Ok(Some(filled.metadata)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(Failure::from(&error)),
        }
    }

    /// The one of that name, if it is ours or can become ours.
    async fn claim(&self, name: &str) -> Result<Claim, Failure> {
        let known = self.api.get_metadata_opt(name).await;
        let known = known.map_err(|error| Failure::from(&error))?;
        match known.map(|known| (self.ownership(&known.metadata), known.metadata)) {
            None => self.create(name).await,
            Some((Ownership::Ours, metadata)) => Ok(Claim {
                metadata,
                is_empty: false,
            }),
            Some((Ownership::Leftover, known)) => {
                self.delete(&known).await.map_err(|error| Failure::from(&error))?;
                self.create(name).await
            }
            Some((Ownership::Foreign, _)) => Err(conflict(name)),
        }
    }

    /// Makes an empty one of that name. An apply alone could not tell a new one from one that somebody made meanwhile.
    async fn create(&self, name: &str) -> Result<Claim, Failure> {
        let empty = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                owner_references: self.owner_references(),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        let parameters = PostParams {
            field_manager: Some(self.manager()),
            ..PostParams::default()
        };
        match self.api.create(&parameters, &empty).await {
            Ok(created) => Ok(Claim {
                // An admission webhook may have put something in.
                is_empty: created.data.is_none() && created.binary_data.is_none(),
                metadata: created.metadata,
            }),
            // Somebody was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Err(conflict(name)),
            Err(error) => Err(Failure::from(&error)),
        }
    }

    fn owner_references(&self) -> Option<Vec<OwnerReference>> {
        self.owner
            .controller_owner_ref(&())
            .map(|reference| vec![reference])
    }

    /// The labels that a ConfigMap has.
    pub fn labels(&self, role: Role, toolkit: Option<&str>) -> BTreeMap<String, String> {
        let mut labels = self.owner.spec.output.labels.clone();
        labels.extend([
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (CACHE_LABEL.to_owned(), names::label(&self.owner.name_any())),
            (ROLE_LABEL.to_owned(), role.as_str().to_owned()),
        ]);
        labels.extend(toolkit.map(|slug| (TOOLKIT_LABEL.to_owned(), names::label(slug))));
        labels
    }

    fn manifest_of(
        &self,
        part: &Part,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        known: &ObjectMeta,
    ) -> ConfigMap {
        let binary = part
            .binary_data
            .iter()
            .map(|(key, bytes)| (key.clone(), ByteString(bytes.clone())));
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(part.name.clone()),
                // The very object that was looked at, not one of the same name made since.
                uid: known.uid.clone(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: self.owner_references(),
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
            field_manager: Some(self.manager()),
            ..PatchParams::default()
        };
        let cleaned = self
            .api
            .patch_metadata(&part.name, &parameters, &Patch::Merge(patch))
            .await;
        cleaned
            .map(|cleaned| cleaned.metadata.resource_version)
            .map_err(|error| Failure::from(&error))
    }

    /// Deletes the one with that name if it is ours.
    pub async fn delete_named(&self, name: &str) -> kube::Result<()> {
        match self.api.get_metadata_opt(name).await? {
            Some(meta) if self.ownership(&meta.metadata) == Ownership::Ours => {
                self.delete(&meta.metadata).await
            }
            _ => Ok(()),
        }
    }

    async fn delete(&self, metadata: &ObjectMeta) -> kube::Result<()> {
        let same_object = DeleteParams {
            preconditions: Some(Preconditions {
                uid: metadata.uid.clone(),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        match self
            .api
            .delete(&metadata.name.clone().unwrap_or_default(), &same_object)
            .await
        {
            // Gone already, or another one by now.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }
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
