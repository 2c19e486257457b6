//! Composio's error envelope, and the code and slug pairs it is known to use.
//!
//! Pairs that are neither documented nor observed follow the pattern of the known ones: `10` + status and `HTTP_` + the
//! status' name.

use std::borrow::Cow;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    config::{Access, Area},
    ids,
    state::lifecycle::{AccountStatus, Refusal},
};

/// A refusal by the API. It becomes JSON once the request's id is known.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    code: u32,
    slug: Cow<'static, str>,
    message: String,
    suggested_fix: Option<String>,
    errors: Vec<String>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        code: u32,
        slug: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            slug: slug.into(),
            message: message.into(),
            suggested_fix: None,
            errors: Vec::new(),
        }
    }

    fn fix(self, suggested_fix: impl Into<String>) -> Self {
        Self {
            suggested_fix: Some(suggested_fix.into()),
            ..self
        }
    }

    pub(crate) fn missing_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            10401,
            "HTTP_Unauthorized",
            "No API key provided",
        )
        .fix("Send your project's API key in the x-api-key header.")
    }

    pub(crate) fn invalid_key(key: &str) -> Self {
        let message = format!("Invalid API key: {}", ids::masked(key));
        Self::new(StatusCode::UNAUTHORIZED, 10401, "HTTP_Unauthorized", message)
            .fix("Check the API key and try again.")
    }

    pub(crate) fn missing_scope(area: Area, access: Access) -> Self {
        let (area, access): (&str, &str) = (area.into(), access.into());
        let message = format!("This route requires {area} {access} access.");
        Self::new(
            StatusCode::FORBIDDEN,
            812,
            "APIKey_InsufficientPermissions",
            message,
        )
        .fix("Use an API key with the required scope.")
    }

    /// Schema validation; each error is `Error in <place>: <what>`.
    pub(crate) fn validation(errors: Vec<String>) -> Self {
        let message = "Validation error while processing request";
        let error = Self::new(StatusCode::BAD_REQUEST, 10400, "HTTP_BadRequest", message);
        Self {
            errors,
            ..error.fix("Please check the payload.")
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 10400, "HTTP_BadRequest", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, 10404, "HTTP_NotFound", message)
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, 10501, "HTTP_NotImplemented", message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            10405,
            "HTTP_MethodNotAllowed",
            "Method not allowed",
        )
    }

    pub(crate) fn payload_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            10413,
            "HTTP_PayloadTooLarge",
            "Request body is too large",
        )
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            10500,
            "HTTP_InternalServerError",
            "Internal server error",
        )
    }

    /// The error a fault asks for, with the code and slug that belong to its status.
    pub(crate) fn injected(status: u16, message: Option<&str>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let name = status.canonical_reason().unwrap_or("Error");
        let slug = format!("HTTP_{}", name.replace(' ', ""));
        Self::new(
            status,
            10_000 + u32::from(status.as_u16()),
            slug,
            message.unwrap_or(name),
        )
    }

    pub(crate) fn account_not_found(id: &str) -> Self {
        let message = format!("Connected account \"{id}\" not found");
        Self::new(
            StatusCode::NOT_FOUND,
            606,
            "ConnectedAccount_ResourceNotFound",
            message,
        )
    }

    pub(crate) fn account_bad_request(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            600,
            "ConnectedAccount_BadRequest",
            message,
        )
    }

    pub(crate) fn alias_taken(alias: &str) -> Self {
        Self::account_bad_request(format!(
            "Alias \"{alias}\" is already in use by another connection for this entity"
        ))
    }

    pub(crate) fn missing_account_fields(fields: &str) -> Self {
        let message = format!("Missing required fields: {fields}");
        Self::new(
            StatusCode::BAD_REQUEST,
            612,
            "ConnectedAccount_MissingRequiredFields",
            message,
        )
    }

    pub(crate) fn legacy_create_retired() -> Self {
        Self::account_bad_request(
            "Creating connections on this endpoint for Composio-managed OAuth auth configs is no longer supported. \
             Use POST /api/v3/connected_accounts/link instead.",
        )
        .fix(
            "Call POST /api/v3/connected_accounts/link with the same auth_config_id and user_id to get a redirect \
             URL for the end user.",
        )
    }

    pub(crate) fn wrong_state(refusal: &Refusal) -> Self {
        Self::account_bad_request(sentence(refusal))
    }

    pub(crate) fn conflict(refusal: &Refusal) -> Self {
        Self::new(StatusCode::CONFLICT, 10409, "HTTP_Conflict", sentence(refusal))
    }

    pub(crate) fn auth_config_not_found(id: &str) -> Self {
        let message = format!("Auth config \"{id}\" not found");
        Self::new(StatusCode::NOT_FOUND, 10404, "Auth_Config_NotFound", message)
    }

    pub(crate) fn no_auth_toolkit(toolkit: &str) -> Self {
        let message = format!(
            "Cannot create an auth config for toolkit \"{toolkit}\" because it does not require authentication. You \
             can use its tools directly without creating a connected account."
        );
        Self::new(StatusCode::BAD_REQUEST, 303, "Auth_Config_NoAuthApp", message)
    }

    pub(crate) fn no_managed_credentials(toolkit: &str) -> Self {
        let message = format!(
            "Default auth config not found for toolkit \"{toolkit}\". Composio does not have managed credentials for \
             this toolkit."
        );
        Self::new(
            StatusCode::BAD_REQUEST,
            306,
            "Auth_Config_DefaultAuthConfigNotFound",
            message,
        )
        .fix("Create the auth config with type use_custom_auth and your own credentials.")
    }

    pub(crate) fn toolkit_not_found(slug: &str) -> Self {
        Self::not_found(format!("Toolkit {slug} not found"))
    }

    pub(crate) fn tool_not_found(slug: &str) -> Self {
        let message = format!("Tool {slug} not found");
        Self::new(StatusCode::NOT_FOUND, 2401, "Tool_ToolNotFound", message).fix("Check your input.")
    }

    pub(crate) fn tool_removed(slug: &str, version: &str) -> Self {
        let message = format!("Tool {slug} does not exist in version {version} of its toolkit");
        Self::new(StatusCode::GONE, 10410, "HTTP_Gone", message)
    }

    pub(crate) fn no_account_for_tool(status: StatusCode, user_id: &str, toolkit: &str) -> Self {
        let message = format!("No connected account found for user ID {user_id} for toolkit {toolkit}");
        Self::new(status, 1810, "ActionExecute_ConnectedAccountNotFound", message)
            .fix("Connect an account of this toolkit for this user first.")
    }

    pub(crate) fn user_id_required() -> Self {
        let message = "User ID is required with the connected account";
        Self::new(
            StatusCode::BAD_REQUEST,
            1811,
            "ActionExecute_ConnectedAccountEntityIdRequired",
            message,
        )
        .fix("Send the user_id the connected account belongs to.")
    }

    pub(crate) fn user_id_mismatch() -> Self {
        let message = "Connected account user ID does not match the provided user ID.";
        Self::new(
            StatusCode::BAD_REQUEST,
            1812,
            "ActionExecute_ConnectedAccountEntityIdMismatch",
            message,
        )
        .fix("The connected_account_id you provided belongs to a different entity.")
    }

    pub(crate) fn account_expired(id: &str) -> Self {
        let message = format!("Connected account {id} is in EXPIRED state");
        Self::new(
            StatusCode::GONE,
            1820,
            "ActionExecute_ConnectedAccountExpired",
            message,
        )
        .fix("Reconnect the account.")
    }

    pub(crate) fn account_unusable(id: &str, status: AccountStatus) -> Self {
        let message = format!("Connected account {id} is in {status} state; tools need an ACTIVE account");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            10422,
            "HTTP_UnprocessableEntity",
            message,
        )
    }

    /// The proxy names its refusals by slug alone.
    pub(crate) fn proxy(slug: &'static str, message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 10400, slug, message)
    }

    /// The response body.
    pub(crate) fn render(&self, request_id: &str) -> Value {
        let mut error = json!({
            "message": self.message,
            "code": self.code,
            "slug": self.slug,
            "status": self.status.as_u16(),
            "request_id": request_id,
        });
        if let Some(fix) = &self.suggested_fix {
            error["suggested_fix"] = json!(fix);
        }
        if !self.errors.is_empty() {
            error["errors"] = json!(self.errors);
        }
        json!({"error": error})
    }
}

fn sentence(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    let (first, rest) = text.split_at(1);
    format!("{}{rest}", first.to_uppercase())
}

impl IntoResponse for ApiError {
    /// Only carries the error; the pipeline around every handler renders it.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
