//! Scripted answers for tests, below the SDK's own signing, parsing and retrying.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use serde_json::Value;

/// The same for each SDK, whose types are its own.
macro_rules! scripted_config {
    ($sdk:ident, $script:expr) => {{
        use $sdk::config::retry::RetryConfig;
        use $sdk::config::{BehaviorVersion, Credentials, Region};
        let script = $script.clone();
        let eager = RetryConfig::standard().with_max_attempts(9).with_initial_backoff(Duration::from_millis(1));
        $sdk::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "tests"))
            .retry_config(eager)
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(script.clone())))
    }};
}

/// What the endpoint does with a request.
pub(super) enum Answer {
    Json(Value),
    /// An answer with a `Date`.
    Dated(&'static str, Value),
    /// A refusal: HTTP status, error code, words.
    Refusal(u16, &'static str, &'static str),
    /// A refusal with a body of its own.
    RefusalWith(u16, Value),
    /// A body that is not of the protocol.
    Garbage,
    /// The connection breaks.
    Broken,
    /// Nothing, ever.
    Silence,
}

/// A request as it went out: the operation, and the body.
pub(super) type Seen = (String, Value);

/// An endpoint that gives one answer after another and remembers the requests.
#[derive(Clone, Default)]
pub(super) struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    seen: Vec<Seen>,
}

impl Script {
    pub(super) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new(State { answers: answers.into_iter().collect(), seen: Vec::new() })))
    }

    /// What went out so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.0.lock().expect("no test panicked in here").seen.clone()
    }

    /// A client of the script, and its configuration. Its retries are as eager as they come, so that a test notices where the
    /// crate does not set its own.
    #[cfg(feature = "kinesis")]
    pub(super) fn kinesis(&self) -> aws_sdk_kinesis::config::Builder {
        scripted_config!(aws_sdk_kinesis, self)
    }

    #[cfg(feature = "dynamodb")]
    pub(super) fn dynamodb(&self) -> aws_sdk_dynamodb::config::Builder {
        scripted_config!(aws_sdk_dynamodb, self)
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl HttpConnector for Script {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut state = self.0.lock().expect("no test panicked in here");
        let operation = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = operation.rsplit('.').next().unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or(Value::Null);
        state.seen.push((operation, body));
        let answer = state.answers.pop_front().expect("a request that the script does not foresee");
        drop(state);
        match answer {
            Answer::Json(body) => HttpConnectorFuture::ready(Ok(response(200, body.to_string()))),
            Answer::Dated(date, body) => {
                let mut response = response(200, body.to_string());
                response.headers_mut().insert("date", date);
                HttpConnectorFuture::ready(Ok(response))
            }
            Answer::Refusal(status, code, words) => {
                let body = serde_json::json!({"__type": code, "message": words});
                HttpConnectorFuture::ready(Ok(response(status, body.to_string())))
            }
            Answer::RefusalWith(status, body) => HttpConnectorFuture::ready(Ok(response(status, body.to_string()))),
            Answer::Garbage => HttpConnectorFuture::ready(Ok(response(200, "<html>".to_owned()))),
            Answer::Broken => HttpConnectorFuture::ready(Err(ConnectorError::io("connection reset".into()))),
            Answer::Silence => HttpConnectorFuture::new(std::future::pending()),
        }
    }
}

fn response(status: u16, body: String) -> HttpResponse {
    let status = status.try_into().expect("a status");
    HttpResponse::new(status, SdkBody::from(body))
}
