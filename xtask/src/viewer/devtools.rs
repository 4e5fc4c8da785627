//! Chromium behind its own protocol (DevTools): one browser, one page, calls that wait.
//!
//! Why: the protocol is JSON over a WebSocket. What a test needs of it are a dozen calls, for which
//! a WebDriver client would bring sixty packages and a second program to run.
//!
//! Invariants: every wait is bounded, and the browser ends with its owner.

use std::cell::RefCell;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use crate::run::wait_for;

/// What has not come after this long does not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A screenshot is far below; an answer beyond it is a mistake of a test.
const ANSWER_SIZE_MAX: usize = 64 << 20;

/// Size of the window in pixels.
const WINDOW: (u32, u32) = (1500, 950);

/// A browser that runs, with one page that is attached to.
pub(super) struct DevTools {
    wire: RefCell<Wire>,
    process: Child,
    /// Where the browser keeps what it wants to remember.
    _profile: TempDir,
}

struct Wire {
    socket: WebSocket<TcpStream>,
    /// Names the page in calls; none until it is attached to.
    session: Option<String>,
    number: u64,
    /// What the page did that no page of ours may do, as it was told of.
    complaints: Vec<String>,
}

impl DevTools {
    /// Starts a headless browser with an empty page.
    pub(super) fn start() -> Result<Self> {
        let profile = tempfile::tempdir().context("a temporary folder")?;
        let mut process = command(profile.path())?.spawn().context("starting chromium")?;
        match connect(profile.path()) {
            Ok(socket) => {
                let wire = Wire { socket, session: None, number: 0, complaints: Vec::new() };
                let browser = Self { wire: RefCell::new(wire), process, _profile: profile };
                browser.attach()?;
                Ok(browser)
            }
            Err(error) => {
                end(&mut process);
                Err(error)
            }
        }
    }

    fn attach(&self) -> Result<()> {
        let made = self.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let target = json!({ "targetId": made["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", target)?;
        let session = attached["sessionId"].as_str().context("a session has a name")?;
        self.wire.borrow_mut().session = Some(session.to_owned());
        for domain in ["Page", "Runtime", "Network", "Log"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        self.resize(WINDOW.0, WINDOW.1, 1.0)
    }

    /// Gives the window another size, and each of its pixels so many of a picture.
    pub(super) fn resize(&self, width: u32, height: u32, scale: f64) -> Result<()> {
        let window = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", window).map(drop)
    }

    /// Calls a method of the protocol, and waits for its answer.
    pub(super) fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        let answer = self.wire.borrow_mut().call(method, parameters);
        answer.with_context(|| format!("the browser's {method}"))
    }

    /// What went wrong in the page since this was asked last.
    pub(super) fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.wire.borrow_mut().complaints)
    }
}

impl Wire {
    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.number += 1;
        let mut call = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(call.to_string()))?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let Message::Text(text) = self.socket.read()? else { continue };
            let mut answer: Value = serde_json::from_str(&text)?;
            if answer["id"] != json!(self.number) {
                self.on_news(&answer);
                continue;
            }
            ensure!(answer.get("error").is_none(), "{}", answer["error"]);
            return Ok(answer["result"].take());
        }
        bail!("no answer within {PATIENCE:?}")
    }

    /// Scripts that fail, and requests beyond the page itself, are kept; other news is let go.
    fn on_news(&mut self, news: &Value) {
        let parameters = &news["params"];
        match news["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                let details = &parameters["exceptionDetails"];
                self.complaints.push(format!("a script failed: {details}"));
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(format!("the browser says: {}", parameters["entry"]["text"]));
            }
            Some("Network.requestWillBeSent" | "Network.webSocketCreated") => {
                let url = parameters["request"]["url"].as_str();
                let url = url.or_else(|| parameters["url"].as_str());
                let url = url.unwrap_or_default();
                let own =
                    ["file:", "data:", "blob:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:"];
                if !own.iter().any(|scheme| url.starts_with(scheme)) {
                    self.complaints.push(format!("the page asked for {url}"));
                }
            }
            Some(_) | None => {}
        }
    }
}

impl Drop for DevTools {
    fn drop(&mut self) {
        // Whether it takes leave or not, it is ended.
        let _asked = self.wire.get_mut().call("Browser.close", json!({}));
        end(&mut self.process);
    }
}

fn end(process: &mut Child) {
    let _killed = process.kill();
    let _waited = process.wait();
}

fn command(profile: &Path) -> Result<Command> {
    let mut command = Command::new("chromium");
    command.args(["--headless=new", "--remote-debugging-port=0", "--hide-scrollbars"]);
    command.args(["--no-first-run", "--disable-background-networking", "--disable-gpu"]);
    command.args(["--force-color-profile=srgb", "--force-prefers-reduced-motion"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    // The kernel does not let root have the sandbox; everybody else has it.
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        command.arg("--no-sandbox");
    }
    command.arg("about:blank").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Connects to the browser, which writes where it listens into its profile.
fn connect(profile: &Path) -> Result<WebSocket<TcpStream>> {
    let (port, path) = wait_for("chromium", PATIENCE, || {
        let text = std::fs::read_to_string(profile.join("DevToolsActivePort"))?;
        let (port, path) = text.split_once('\n').context("a port and a path")?;
        ensure!(!path.is_empty(), "the path is not written yet");
        Ok((port.trim().parse::<u16>()?, path.trim().to_owned()))
    })?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(ANSWER_SIZE_MAX))
        .max_frame_size(Some(ANSWER_SIZE_MAX));
    let address = format!("ws://127.0.0.1:{port}{path}");
    let (socket, _answer) = tungstenite::client::client_with_config(address, stream, Some(config))
        .map_err(|error| anyhow::anyhow!("the browser's WebSocket: {error}"))?;
    Ok(socket)
}
