//! HTTP around the dispatcher.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::serve::ListenerExt;
use futures_util::StreamExt;
use tokio::sync::oneshot;

use crate::dispatch::dispatch;
use crate::state::State;
use crate::wire::ApiError;

/// Above the largest request that the API allows: 10 MiB of payload in base64, and the JSON around it.
const MAX_BODY_BYTES: usize = 20 * 1024 * 1024;

const TARGET_PREFIX: &str = "Kinesis_20131202.";

/// Serves until told to stop, or until whoever could tell is gone.
pub(crate) async fn serve(listener: TcpListener, state: State, stop: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener.tap_io(|connection| {
            // Without this, small answers wait for the client's acknowledgement.
            let _ = connection.set_nodelay(true);
        }),
        Err(error) => return tracing::error!(%error, "the listener cannot be used"),
    };
    let requests = Arc::new(AtomicU64::new(0));
    let app = Router::new().fallback(move |request: Request| {
        let (state, id) = (state.clone(), requests.fetch_add(1, Ordering::Relaxed));
        async move { answer(&state, id, request).await }
    });
    tokio::select! {
        biased;
        _ = stop => {}
        result = axum::serve(listener, app) => {
            if let Err(error) = result {
                tracing::error!(%error, "the server ended");
            }
        }
    }
}

async fn answer(state: &State, id: u64, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Read in any case: a client that is still sending might not see an earlier answer.
    let body = read(body).await;
    let result = operation(&head.method, &head.headers).and_then(|operation| {
        dispatch(state, operation, &body?)
            .inspect_err(|error| tracing::debug!(operation, code = %error.code, message = %error.message, "refused"))
    });
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (error.status, error.body()),
    };
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/x-amz-json-1.1")
        .header("x-amzn-RequestId", format!("00000000-0000-4000-8000-{id:012x}"))
        .body(Body::from(body));
    response.unwrap_or_else(|error| {
        tracing::error!(%error, "the answer cannot be sent");
        Response::new(Body::empty())
    })
}

/// The whole body. Of one that is too large, the rest is read and dropped.
async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let announced = body.size_hint().upper().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(announced.min(MAX_BODY_BYTES));
    let mut too_large = false;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| ApiError::serialization(format!("the body ended early: {error}")))?;
        too_large |= bytes.len() + chunk.len() > MAX_BODY_BYTES;
        if !too_large {
            bytes.extend_from_slice(&chunk);
        }
    }
    if too_large { Err(ApiError::too_large(MAX_BODY_BYTES)) } else { Ok(bytes) }
}

/// The operation that a request names.
fn operation<'a>(method: &Method, headers: &'a HeaderMap) -> Result<&'a str, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if method != Method::POST {
        return Err(ApiError::unknown_operation(&format!("{method} request")));
    }
    if text("content-type").contains("cbor") {
        return Err(ApiError::serialization(
            "this engine speaks JSON only: turn CBOR off in the client (AWS_CBOR_DISABLE=true, or `aws.cborEnabled=false` in Java)",
        ));
    }
    let target = text("x-amz-target");
    target.strip_prefix(TARGET_PREFIX).ok_or_else(|| ApiError::unknown_operation(target))
}
