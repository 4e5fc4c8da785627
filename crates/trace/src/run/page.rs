//! A page that shows a run: one file with everything in it, which asks for nothing over a network.
//!
//! The viewer's modules stay modules: each becomes a `data:` address, and an import map says under
//! which name it is found.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{Run, RunDecodeError};

/// The viewer's modules: their names, as they import each other, and their texts.
const MODULES: [(&str, &str); 19] = [
    ("viewer/base.js", include_str!("../../../../viewer/base.js")),
    ("viewer/decode.js", include_str!("../../../../viewer/decode.js")),
    ("viewer/times.js", include_str!("../../../../viewer/times.js")),
    ("viewer/arrows.js", include_str!("../../../../viewer/arrows.js")),
    ("viewer/pixels.js", include_str!("../../../../viewer/pixels.js")),
    ("viewer/history.js", include_str!("../../../../viewer/history.js")),
    ("viewer/cone.js", include_str!("../../../../viewer/cone.js")),
    ("viewer/find.js", include_str!("../../../../viewer/find.js")),
    ("viewer/compare.js", include_str!("../../../../viewer/compare.js")),
    ("viewer/paint.js", include_str!("../../../../viewer/paint.js")),
    ("viewer/minimap.js", include_str!("../../../../viewer/minimap.js")),
    ("viewer/legend.js", include_str!("../../../../viewer/legend.js")),
    ("viewer/panels.js", include_str!("../../../../viewer/panels.js")),
    ("viewer/table.js", include_str!("../../../../viewer/table.js")),
    ("viewer/pointer.js", include_str!("../../../../viewer/pointer.js")),
    ("viewer/link.js", include_str!("../../../../viewer/link.js")),
    ("viewer/keys.js", include_str!("../../../../viewer/keys.js")),
    ("viewer/live.js", include_str!("../../../../viewer/live.js")),
    ("viewer/main.js", include_str!("../../../../viewer/main.js")),
];

const STYLE: &str = include_str!("../../../../viewer/style.css");
const BODY: &str = include_str!("../../../../viewer/body.html");

/// What the page may load: nothing but itself.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline' data:; \
                      style-src 'unsafe-inline'; img-src data:";

/// The page for these runs: one is shown alone, two side by side.
#[must_use]
pub fn page(runs: &[&Run]) -> String {
    page_with(runs, "", "connect-src data:")
}

/// The page for a run that goes on: it asks whoever served it, at `/live`, for what is new.
#[must_use]
pub fn live_page(run: &Run) -> String {
    // To a browser, the page's own address includes its WebSockets.
    let head = "<meta name=\"kvraft-live\" content=\"/live\">\n";
    page_with(&[run], head, "connect-src 'self'")
}

fn page_with(runs: &[&Run], head: &str, reach: &str) -> String {
    let title = runs.first().map_or("a run", |run| run.title.as_str());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}; {reach}\">\n{head}\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n<script type=\"importmap\">{}</script>\n</head>\n{BODY}",
        escaped(title),
        import_map(),
    );
    for run in runs {
        page.push_str(BEFORE);
        STANDARD.encode_string(run.encode(), &mut page);
        page.push_str(AFTER);
        page.push('\n');
    }
    page.push_str("<script type=\"module\">import \"viewer/main.js\";</script>\n</html>\n");
    page
}

/// What stands before a run in a page, and after it.
const BEFORE: &str = "<script type=\"application/x-kvraft-run\">";
const AFTER: &str = "</script>";

/// The runs in a page that [`page`] has made.
///
/// # Errors
/// Any [`RunDecodeError`].
pub fn runs_of(page: &str) -> Result<Vec<Run>, RunDecodeError> {
    let parts = page.split(BEFORE).skip(1);
    let runs = parts.map(|part| {
        let text = part.split(AFTER).next().unwrap_or_default().trim();
        Run::decode(&STANDARD.decode(text).map_err(|_| RunDecodeError::Compression)?)
    });
    let runs: Vec<Run> = runs.collect::<Result<_, _>>()?;
    if runs.is_empty() { Err(RunDecodeError::NoRun) } else { Ok(runs) }
}

fn import_map() -> String {
    let address = |(name, text): &(&str, &str)| {
        let named = format!("{text}\n//# sourceURL={name}\n");
        let address = format!("data:text/javascript;base64,{}", STANDARD.encode(named));
        ((*name).to_owned(), json!(address))
    };
    let imports: serde_json::Map<_, _> = MODULES.iter().map(address).collect();
    json!({ "imports": imports }).to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
