//! Requests of the command line to one node's HTTP API, and what can go wrong with them.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Most bytes of one answer, above the largest reply of a coverage command in JSON.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// One node to ask.
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    timeout: Duration,
}

/// Why a node did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The address of the node is not one.
    #[error(
        "{endpoint:?} is not the HTTP address of a node\n  next: write it like http://127.0.0.1:7380"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// Nobody is there.
    #[error(
        "no node answers\n  in: {url}\n  next: is a node running? start one with `host --vnode kv`, or name another with -e URL"
    )]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the system says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It does not want all that it was sent.
    #[error(
        "the node ended the connection before it had all {bytes} bytes\n  in: {url}\n  next: it takes no component that is larger than its component_bytes_max; `host config show` tells how much that is"
    )]
    CutOff {
        /// What was asked.
        url: String,
        /// Of the body.
        bytes: usize,
        /// What the system says.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no answer within {}\n  in: {url}\n  next: the command may still run; ask again, or wait longer with --timeout", humantime::format_duration(*timeout))]
    Timeout {
        /// What was asked.
        url: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// Something answers that is not a node.
    #[error(
        "the answer is not that of a node\n  in: {url}\n  next: use the HTTP address; it is the RESP port plus one unless --http says otherwise"
    )]
    Foreign {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node refuses.
    #[error("{detail}{}", hint.as_ref().map(|hint| format!("\n  next: {hint}")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// What is wrong.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl ClientError {
    /// Whether the same request may well be answered a little later: nobody is there yet, or nobody decides just now.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Refused { status: 503, .. }
        )
    }
}

/// The body of an error, `application/problem+json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
}

impl Client {
    /// A client of the node at `endpoint`.
    pub(super) fn new(endpoint: &str, timeout: Duration) -> Result<Self, ClientError> {
        let base = if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            format!("http://{endpoint}")
        };
        let authority = base
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'));
        if authority.is_none_or(|rest| rest.is_empty() || rest.contains(['/', '?', '#', ' '])) {
            return Err(ClientError::Endpoint {
                endpoint: endpoint.into(),
            });
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // A proxy of the environment does not know this machine's loopback.
            .proxy(None)
            .build();
        Ok(Self {
            agent: config.into(),
            endpoint: base.trim_end_matches('/').to_owned(),
            timeout,
        })
    }

    /// A client of another node, which waits as long.
    pub(super) fn elsewhere(&self, endpoint: &str) -> Result<Self, ClientError> {
        Self::new(endpoint, self.timeout)
    }

    /// What is asked, as a URL.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The body of a GET.
    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.endpoint);
        let mut request = self.agent.get(&url);
        for (name, value) in query {
            request = request.query(name, value);
        }
        self.answer(&url, request.call())
    }

    /// The body of a POST.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.endpoint);
        self.answer(&url, self.agent.post(&url).send_json(body))
    }

    /// The body of a POST of bytes.
    pub(super) fn post_bytes(
        &self,
        path: &str,
        query: &[(&str, String)],
        bytes: &[u8],
    ) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.endpoint);
        let mut request = self.agent.post(&url);
        for (name, value) in query {
            request = request.query(name, value);
        }
        match request.send(bytes) {
            // A node that has answered "too large" does not read on, and its answer may be lost with the connection.
            Err(ureq::Error::Io(source)) if is_cut_off(&source) => Err(ClientError::CutOff {
                url,
                bytes: bytes.len(),
                source,
            }),
            sent => self.answer(&url, sent),
        }
    }

    /// The body of a DELETE.
    pub(super) fn delete(&self, path: &str) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.endpoint);
        self.answer(&url, self.agent.delete(&url).call())
    }

    /// Whether the node says that it takes commands, and its words.
    pub(super) fn readiness(&self) -> Result<(bool, String), ClientError> {
        let url = format!("{}/readyz", self.endpoint);
        let (status, text) = self.text(&url, self.agent.get(&url).call())?;
        Ok((status.is_success(), text))
    }

    /// A body as the type that a command prints.
    pub(super) fn view<T: DeserializeOwned>(&self, body: Value) -> Result<T, ClientError> {
        serde_json::from_value(body).map_err(|source| ClientError::Foreign {
            url: self.endpoint.clone(),
            source: source.into(),
        })
    }

    fn answer(
        &self,
        url: &str,
        sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, ClientError> {
        let (status, body) = self.text(url, sent)?;
        if !status.is_success() {
            let problem: Problem = serde_json::from_str(&body).unwrap_or_default();
            let detail = problem.detail.or(problem.title);
            let detail = detail.unwrap_or_else(|| format!("the node answers {status} to {url}"));
            return Err(ClientError::Refused {
                status: status.as_u16(),
                detail: match problem.code {
                    // The word that a Redis client would see first.
                    Some(code) if !detail.starts_with(&code) => format!("{code} {detail}"),
                    _ => detail,
                },
                hint: problem.hint,
            });
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&body).map_err(|source| ClientError::Foreign {
            url: url.into(),
            source: source.into(),
        })
    }

    fn text(
        &self,
        url: &str,
        sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(ureq::http::StatusCode, String), ClientError> {
        let mut response = sent.map_err(|error| self.explain(url, error))?;
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string();
        let body = body.map_err(|error| self.explain(url, error))?;
        Ok((response.status(), body))
    }

    fn explain(&self, url: &str, error: ureq::Error) -> ClientError {
        let url = url.to_owned();
        match error {
            ureq::Error::Timeout(_) => ClientError::Timeout {
                url,
                timeout: self.timeout,
            },
            ureq::Error::Io(source) => ClientError::Unreachable {
                url,
                source: source.into(),
            },
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => ClientError::Unreachable {
                url,
                source: error.into(),
            },
            ureq::Error::BadUri(_) => ClientError::Endpoint {
                endpoint: self.endpoint.clone(),
            },
            other => ClientError::Foreign {
                url,
                source: other.into(),
            },
        }
    }
}

/// Whether the other side ended a connection on which it had begun to read.
fn is_cut_off(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | ConnectionAborted
    )
}
