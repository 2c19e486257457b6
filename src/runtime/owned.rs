//! Child objects: whose a child is, and how it is claimed, applied and deleted without ever touching one that belongs to
//! somebody else.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::failure::Failure;
use super::status::test;
use crate::api::common::Managed;

/// Whose a child object is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ownership {
    /// The owner is its controller.
    Owned,
    /// An earlier owner of the same name was its controller; the garbage collector is about to delete it.
    PreviousOwner,
    /// Somebody else's, or nobody's.
    NotOwned,
}

/// Whose a child with this metadata is, for an owner of kind `K` with this name and uid in the child's namespace.
pub fn ownership<K: Managed>(name: &str, uid: &str, child: &ObjectMeta) -> Ownership {
    let mut owners = child.owner_references.iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(controller) if controller.uid == uid => Ownership::Owned,
        // Names are unique: the owner with the other uid does not exist any more.
        Some(controller) if controller.name == name && is_kind::<K>(controller) => Ownership::PreviousOwner,
        _ => Ownership::NotOwned,
    }
}

/// Of whatever version.
fn is_kind<K: Managed>(reference: &OwnerReference) -> bool {
    reference.api_version.split('/').next() == Some(&K::group(&())) && reference.kind == K::kind(&())
}

/// A child that may be written.
pub struct Claim<C> {
    /// Its metadata, as it was read or created.
    pub metadata: ObjectMeta,
    /// The child, if it was created just now.
    pub created: Option<C>,
}

/// Why a child cannot be claimed.
#[derive(Debug)]
pub enum ClaimError {
    /// It belongs to somebody else.
    NotOwned,
    /// The API server refused or did not answer.
    Kube(kube::Error),
}

impl From<kube::Error> for ClaimError {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

impl ClaimError {
    /// The failure of the owner; `not_owned` if the child belongs to somebody else.
    pub fn into_failure(self, not_owned: impl FnOnce() -> Failure) -> Failure {
        match self {
            Self::NotOwned => not_owned(),
            Self::Kube(error) => Failure::from(&error),
        }
    }
}

/// The children of one owner, all of one kind.
pub struct Children<'a, K, C> {
    /// The children of the owner's namespace.
    pub api: Api<C>,
    /// The owner.
    pub owner: &'a K,
    /// Field manager of all writes.
    pub manager: String,
}

impl<K, C> Children<'_, K, C>
where
    K: Managed,
    C: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    /// Whose a child with this metadata is.
    pub fn ownership(&self, child: &ObjectMeta) -> Ownership {
        let owner = self.owner.meta();
        let (name, uid) = (owner.name.as_deref(), owner.uid.as_deref());
        ownership::<K>(name.unwrap_or_default(), uid.unwrap_or_default(), child)
    }

    /// What goes into a child, so that Kubernetes deletes it with its owner.
    pub fn owner_references(&self) -> Option<Vec<OwnerReference>> {
        self.owner
            .controller_owner_ref(&())
            .map(|reference| vec![reference])
    }

    /// Makes sure that the child called like `new` exists and is owned; `new` is created if there is none. `is_new`: there
    /// was none a moment ago, so it is not looked for first.
    ///
    /// An apply alone could not tell a child that it creates from one that somebody else created meanwhile.
    pub async fn claim(&self, new: &C, is_new: bool) -> Result<Claim<C>, ClaimError> {
        if is_new {
            match self.create(new).await {
                Err(ClaimError::NotOwned) => {}
                created => return created,
            }
        }
        match self.api.get_metadata_opt(&new.name_any()).await? {
            None => self.create(new).await,
            Some(found) => match self.ownership(&found.metadata) {
                Ownership::Owned => Ok(Claim {
                    metadata: found.metadata,
                    created: None,
                }),
                Ownership::PreviousOwner => {
                    self.delete(&found.metadata).await?;
                    self.create(new).await
                }
                Ownership::NotOwned => Err(ClaimError::NotOwned),
            },
        }
    }

    /// Creates a child.
    pub async fn create(&self, new: &C) -> Result<Claim<C>, ClaimError> {
        let parameters = PostParams {
            field_manager: Some(self.manager.clone()),
            ..PostParams::default()
        };
        match self.api.create(&parameters, new).await {
            Ok(created) => Ok(Claim {
                metadata: created.meta().clone(),
                created: Some(created),
            }),
            // Somebody was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Err(ClaimError::NotOwned),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the fields that a child was created with those of an apply, so that the next apply takes out what it leaves out:
    /// the API server keeps apart what one manager has created and what it has applied.
    /// See <https://kubernetes.io/docs/reference/using-api/server-side-apply/#upgrading-from-client-side-apply-to-server-side-apply>.
    pub async fn own_created_fields(&self, child: &ObjectMeta) -> kube::Result<()> {
        let entries = child.managed_fields.iter().flatten();
        let mut own = entries.enumerate().filter(|(_, entry)| {
            entry.manager.as_deref() == Some(&self.manager) && entry.subresource.is_none()
        });
        let operation = |entry: &ManagedFieldsEntry| entry.operation.clone();
        let (Some((place, entry)), None) = (own.next(), own.next()) else {
            return Ok(());
        };
        if operation(entry).as_deref() != Some("Update") {
            return Ok(());
        }
        let at = format!("/metadata/managedFields/{place}");
        let patch = serde_json::from_value(json!([
            test("/metadata/uid", &json!(child.uid)),
            test(&format!("{at}/manager"), &json!(self.manager)),
            { "op": "replace", "path": format!("{at}/operation"), "value": "Apply" },
        ]));
        let patch = Patch::<()>::Json(patch.map_err(kube::Error::SerdeError)?);
        let name = child.name.as_deref().unwrap_or_default();
        let changed = self
            .api
            .patch_metadata(name, &PatchParams::default(), &patch)
            .await;
        changed.map(drop)
    }

    /// Applies a child, which names the uid of the one that was claimed: a namesake created since is not touched.
    pub async fn apply(&self, child: &C) -> kube::Result<C> {
        let patch = Patch::Apply(child);
        self.api
            .patch(&child.name_any(), &self.apply_parameters(), &patch)
            .await
    }

    /// The parameters of an apply, with force: the fields of a child belong to its owner.
    pub fn apply_parameters(&self) -> PatchParams {
        PatchParams::apply(&self.manager).force()
    }

    /// Deletes the child with this name if it is owned, or was left by a previous owner.
    pub async fn delete_named(&self, name: &str) -> kube::Result<()> {
        match self.api.get_metadata_opt(name).await? {
            Some(child) if self.ownership(&child.metadata) != Ownership::NotOwned => {
                self.delete(&child.metadata).await
            }
            _ => Ok(()),
        }
    }

    /// Deletes the very child with this metadata. It is no failure if that is gone, or another one by now.
    pub async fn delete(&self, child: &ObjectMeta) -> kube::Result<()> {
        let same_object = DeleteParams {
            preconditions: Some(Preconditions {
                uid: child.uid.clone(),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        let name = child.name.as_deref().unwrap_or_default();
        match self.api.delete(name, &same_object).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }
}
