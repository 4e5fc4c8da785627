//! What a person does to a page: opens it, types, clicks, looks.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::devtools::{DevTools, PATIENCE};

/// A browser with the page that is looked at.
pub(super) struct Browser {
    devtools: DevTools,
}

impl Browser {
    /// Starts a browser.
    pub(super) fn start() -> Result<Self> {
        Ok(Self { devtools: DevTools::start()? })
    }

    /// Opens a page from disk, and waits until it has painted.
    pub(super) fn open(&self, page: &Path, fragment: &str) -> Result<()> {
        self.open_address(&format!("file://{}{fragment}", page.display()))
    }

    /// Opens a page, and waits until it has painted.
    pub(super) fn open_address(&self, address: &str) -> Result<()> {
        // Another fragment alone would not load the page again.
        self.navigate("about:blank")?;
        self.navigate(address)?;
        self.wait_until("return globalThis.viewer !== undefined")?;
        self.run("return viewer.then((app) => { globalThis.app = app; return true; })")?;
        self.no_errors().with_context(|| format!("opening {address}"))
    }

    /// Gives the window another size, and each of its pixels so many of a picture.
    pub(super) fn resize(&self, width: u32, height: u32, scale: f64) -> Result<()> {
        self.devtools.resize(width, height, scale)?;
        self.settle()
    }

    /// Chooses a file in a field for files, as a person does in the dialog that it opens.
    pub(super) fn choose_file(&self, selector: &str, path: &Path) -> Result<()> {
        let expression = format!("document.querySelector({})", json!(selector));
        let field = self.devtools.call("Runtime.evaluate", json!({ "expression": expression }))?;
        let field = &field["result"]["objectId"];
        let chosen = json!({ "files": [path], "objectId": field });
        self.devtools.call("DOM.setFileInputFiles", chosen)?;
        self.settle()
    }

    fn navigate(&self, address: &str) -> Result<()> {
        let answer = self.devtools.call("Page.navigate", json!({ "url": address }))?;
        ensure!(answer.get("errorText").is_none(), "{address}: {}", answer["errorText"]);
        let is_there = "return document.readyState === 'complete' && location.href.startsWith(a)";
        let script = format!("const a = {}; {is_there}", json!(address.split('#').next()));
        self.wait_until(&script)
    }

    /// What a script returns, or what the promise that it returns becomes.
    pub(super) fn run(&self, script: &str) -> Result<Value> {
        self.run_with(script, &[])
    }

    /// As [`Browser::run`], with what the script knows as `arguments`.
    pub(super) fn run_with(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        let expression = format!("(function () {{ {script} }})(...{})", json!(arguments));
        let parameters = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let mut answer = self.devtools.call("Runtime.evaluate", parameters)?;
        let failed = &answer["exceptionDetails"];
        ensure!(failed.is_null(), "in the page: {script}: {failed}");
        Ok(answer["result"]["value"].take())
    }

    /// Types characters into whatever has the focus.
    pub(super) fn keys(&self, keys: &str) -> Result<()> {
        for key in keys.chars() {
            let key = key.to_string();
            self.key(json!({ "key": key, "text": key }))?;
        }
        self.settle()
    }

    /// Presses a key that has a name, such as `Escape`.
    pub(super) fn press(&self, name: &str) -> Result<()> {
        self.key(json!({ "key": name, "code": name }))?;
        self.settle()
    }

    fn key(&self, mut key: Value) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            key["type"] = json!(kind);
            self.devtools.call("Input.dispatchKeyEvent", key.clone())?;
        }
        Ok(())
    }

    /// Waits until everything that has changed is painted.
    pub(super) fn settle(&self) -> Result<()> {
        let script = "return new Promise((done) =>
            requestAnimationFrame(() => requestAnimationFrame(() => done(true))));";
        self.run(script).map(drop)
    }

    /// Clicks on the middle of an element.
    pub(super) fn click(&self, selector: &str) -> Result<()> {
        let script = "const element = document.querySelector(arguments[0]);
            element.scrollIntoView({ block: 'nearest' });
            const box = element.getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2];";
        let place = self.run_with(script, &[json!(selector)])?;
        self.click_at(&place[0], &place[1])
    }

    /// Clicks on a place of the window, in pixels.
    pub(super) fn click_at(&self, x: &Value, y: &Value) -> Result<()> {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            self.mouse(kind, x, y)?;
        }
        self.settle()
    }

    /// Does something with the mouse, as the protocol names it.
    pub(super) fn mouse(&self, kind: &str, x: &Value, y: &Value) -> Result<()> {
        let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
        self.devtools.call("Input.dispatchMouseEvent", event).map(drop)
    }

    /// Turns the wheel; down is positive.
    pub(super) fn wheel(&self, x: &Value, y: &Value, by: f64) -> Result<()> {
        let event = json!({ "type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": by });
        self.devtools.call("Input.dispatchMouseEvent", event)?;
        self.settle()
    }

    /// The text of an element.
    pub(super) fn text(&self, selector: &str) -> Result<String> {
        let script = "return document.querySelector(arguments[0])?.textContent";
        let text = self.run_with(script, &[json!(selector)])?;
        text.as_str().map(str::to_owned).with_context(|| format!("{selector} has no text"))
    }

    /// Waits until a script returns true, and what it led to is painted.
    pub(super) fn wait(&self, script: &str) -> Result<()> {
        self.wait_until(script)?;
        self.settle()
    }

    fn wait_until(&self, script: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            // While a page goes away, its scripts fail.
            match self.run(script) {
                Ok(Value::Bool(true)) => return Ok(()),
                Ok(_) if began.elapsed() < PATIENCE => {}
                Ok(other) => bail!("it is {other}, after {PATIENCE:?}: {script}"),
                Err(_) if began.elapsed() < PATIENCE => {}
                Err(error) => return Err(error),
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// No script has failed, and nothing was asked of the network, since this was asked last.
    pub(super) fn no_errors(&self) -> Result<()> {
        let complaints = self.devtools.complaints();
        ensure!(complaints.is_empty(), "{}", complaints.join("; "));
        Ok(())
    }

    /// Keeps a picture of what is seen.
    pub(super) fn screenshot(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.picture()?).with_context(|| format!("writing {}", path.display()))
    }

    /// A picture of what is seen, as PNG.
    pub(super) fn picture(&self) -> Result<Vec<u8>> {
        self.settle()?;
        let answer = self.devtools.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        Ok(BASE64_STANDARD.decode(answer["data"].as_str().context("a picture")?)?)
    }
}
