//! A scripted agent that makes the calls and sends the messages of a real one.

use aws_credential_types::Credentials;
use ecs_agent::aws::client::signature::Signed;
use ecs_local::Server;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const LIMIT: Duration = Duration::from_secs(20);

/// The keys of a server's user.
pub(crate) fn keys(server: &Server) -> Credentials {
    Credentials::new("local", server.token().expose(), None, None, "test")
}

/// The keys that the metadata gives to an agent.
async fn role_keys(url: &str) -> Credentials {
    let (client, base) = (http(), format!("{url}/latest/meta-data/iam/security-credentials/"));
    let token = imds_token(&client, url).await;
    let get = async |address: &str| {
        let answer = client.get(address).header("x-aws-ec2-metadata-token", &token).send().await.unwrap();
        answer.text().await.unwrap()
    };
    let role = get(&base).await;
    let keys: Value = serde_json::from_str(&get(&format!("{base}{role}")).await).unwrap();
    let text = |member: &str| keys[member].as_str().unwrap().to_owned();
    Credentials::new(text("AccessKeyId"), text("SecretAccessKey"), Some(text("Token")), None, "test")
}

/// The headers that sign a request.
pub(crate) fn signature(
    keys: Credentials,
    service: &str,
    method: &str,
    url: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> reqwest::header::HeaderMap {
    let (at, url) = (SystemTime::now(), url.parse().unwrap());
    let signed = Signed { at, region: "us-west-2", service, method, url: &url, headers, body };
    signed.headers(keys).unwrap()
}

pub(crate) fn http() -> reqwest::Client {
    // Only the first of several tests in this process installs the provider.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap()
}

pub(crate) async fn imds_token(client: &reqwest::Client, url: &str) -> String {
    let request = client.put(format!("{url}/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    request.send().await.unwrap().text().await.unwrap()
}

/// Makes one call. Returns status and JSON body, which is null if it is not JSON.
pub(crate) async fn api(
    url: &str,
    target: &str,
    body: &Value,
    keys: Option<Credentials>,
) -> reqwest::Result<(u16, Value)> {
    let (url, body) = (format!("{url}/"), body.to_string());
    let mut request = http().post(&url).header("x-amz-target", target).body(body.clone());
    if let Some(keys) = keys {
        let target = [("x-amz-target", target.to_owned())];
        request = request.headers(signature(keys, "ecs", "POST", &url, &target, body.as_bytes()));
    }
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default()))
}

/// Opens the ACS websocket. The error is the status and the body of the refusal.
pub(crate) async fn handshake(
    url: &str,
    query: &str,
    keys: Option<Credentials>,
) -> Result<WebSocketStream<TcpStream>, (u16, String)> {
    handshake_at(url, "/acs/ws", query, keys).await
}

async fn handshake_at(
    url: &str,
    path: &str,
    query: &str,
    keys: Option<Credentials>,
) -> Result<WebSocketStream<TcpStream>, (u16, String)> {
    let address = url.trim_start_matches("http://");
    let mut request = format!("ws://{address}{path}?{query}").into_client_request().unwrap();
    if let Some(keys) = keys {
        let url = format!("http://{address}{path}?{query}");
        request.headers_mut().extend(signature(keys, "ecs", "GET", &url, &[], &[]));
    }
    let stream = TcpStream::connect(address).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            Err((answer.status().as_u16(), body))
        }
        Err(error) => panic!("handshake: {error}"),
    }
}

pub(crate) struct Agent {
    url: String,
    cluster: String,
    keys: Credentials,
    pub(crate) instance: String,
    socket: WebSocketStream<TcpStream>,
}

impl Agent {
    pub(crate) async fn start(server: &Server) -> Self {
        Self::at(server.url()).await
    }

    /// Registers as the recorded agent did, and connects.
    pub(crate) async fn at(url: String) -> Self {
        let path = format!("{}/tests/golden/register_container_instance.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut body = golden["body"].clone();
        // `up` gives its agent a cluster of its own.
        let cluster = std::env::var("ECS_CLUSTER").unwrap_or_else(|_| "default".to_owned());
        body["cluster"] = json!(cluster);
        let target = "AmazonEC2ContainerServiceV20141113.RegisterContainerInstance";
        let keys = role_keys(&url).await;
        let (status, answer) = api(&url, target, &body, Some(keys.clone())).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        let instance = answer["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
        let socket = handshake(&url, &query(&instance, &cluster), Some(keys.clone())).await.unwrap();
        Self { url, cluster, keys, instance, socket }
    }

    pub(crate) fn query(&self) -> String {
        query(&self.instance, &self.cluster)
    }

    pub(crate) async fn connect(&mut self) {
        self.socket = handshake(&self.url, &self.query(), Some(self.keys.clone())).await.unwrap();
    }

    pub(crate) async fn call(&self, operation: &str, body: &Value) -> reqwest::Result<(u16, Value)> {
        api(&self.url, &format!("AmazonEC2ContainerServiceV20141113.{operation}"), body, Some(self.keys.clone())).await
    }

    pub(crate) async fn submit(&self, task: &str, status: &str, container: Value) {
        let body =
            json!({"cluster": self.cluster, "task": task, "status": status, "reason": "", "containers": [container]});
        assert_eq!(self.call("SubmitTaskStateChange", &body).await.unwrap().0, 200);
    }

    pub(crate) async fn send(&mut self, kind: &str, message: Value) {
        self.socket.send(Message::text(json!({"type": kind, "message": message}).to_string())).await.unwrap();
    }

    /// Publishes metrics over TCS: `tasks` are the members `taskMetrics`, empty for an agent that measures nothing. Waits for the
    /// acknowledgement.
    pub(crate) async fn publish_metrics(&self, tasks: &Value) {
        let query = format!("agentVersion=1&cluster={}&containerInstance={}", self.cluster, self.instance);
        let mut socket = handshake_at(&self.url, "/tcs/ws", &query, Some(self.keys.clone())).await.unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let is_idle = tasks.as_array().unwrap().is_empty();
        let metadata = json!({
            "cluster": self.cluster, "containerInstance": self.instance, "messageId": "m", "idle": is_idle, "fin": true,
        });
        let mut message = json!({"metadata": metadata, "timestamp": now});
        if !is_idle {
            message["taskMetrics"] = tasks.clone();
        }
        let body = json!({"type": "PublishMetricsRequest", "message": message}).to_string();
        let address = self.url.trim_start_matches("http://");
        let signed =
            signature(self.keys.clone(), "ecs", "GET", &format!("{}/tcs/ws?{query}", self.url), &[], body.as_bytes());
        let lines = signed.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        let frame = format!("Host: {address}\r\n{}\r\n{body}", lines.collect::<String>());
        socket.send(Message::text(frame)).await.unwrap();
        let answer = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) if !text.contains("HeartbeatMessage") => return text.to_string(),
                    Some(Ok(_)) => {}
                    other => panic!("the socket ended: {other:?}"),
                }
            }
        };
        let answer = tokio::time::timeout(LIMIT, answer).await.expect("an answer in time");
        assert!(answer.contains("AckPublishMetric"), "{answer}");
    }

    pub(crate) async fn ack(&mut self, message: &Value) {
        let id = message["messageId"].clone();
        let (cluster, instance) = (message["clusterArn"].clone(), message["containerInstanceArn"].clone());
        self.send("AckRequest", json!({"cluster": cluster, "containerInstance": instance, "messageId": id})).await;
    }

    /// The next message text that `wanted` accepts.
    pub(crate) async fn text_that(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        tokio::time::timeout(LIMIT, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) if wanted(text.as_str()) => return text.as_str().to_owned(),
                    Some(Ok(_)) => {}
                    other => panic!("the socket ended: {other:?}"),
                }
            }
        })
        .await
        .expect("a message in time")
    }

    /// The `message` part of the next message of this type.
    pub(crate) async fn message(&mut self, kind: &str) -> Value {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let text = self.text_that(|text| parse(text)["type"] == kind).await;
        parse(&text)["message"].clone()
    }

    pub(crate) async fn payload(&mut self) -> Value {
        self.message("PayloadMessage").await
    }

    pub(crate) async fn until_closed(&mut self) {
        tokio::time::timeout(LIMIT, async { while let Some(Ok(_)) = self.socket.next().await {} })
            .await
            .expect("a close in time");
    }
}

fn query(instance: &str, cluster: &str) -> String {
    format!(
        "agentVersion=1&clusterArn={cluster}&containerInstanceArn={instance}&protocolVersion=2&sendCredentials=true&seqNum=1"
    )
}
