//! What is seen on the page, looked for in its pixels and tables: bands, lost messages, operations
//! with the moment of their effect, logs; a second run from a file; recordings of real servers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kvraft_trace::run::{Clock, Node, NodeId, NodeKind, Run, page};
use serde_json::json;

use super::browser::Browser;
use crate::cluster::{Cluster, PATIENCE, SERVER_COUNT};
use crate::ports::free_ports;
use crate::processes::Guard;
use crate::run::{Step, output, wait_for};

/// Where a second run from a file parts from the first.
const PARTING: usize = 900;

/// All that is looked at.
pub(super) fn steps<'a>(
    browser: &'a Browser,
    run: &'a Run,
    binary: &'a Path,
    folder: &'a Path,
    shot: &'a dyn Fn(&str) -> Result<()>,
) -> Vec<Step<'a>> {
    vec![
        Step::new("bands of faults, lost messages and effects are seen", || {
            let single = folder.join("sights.html");
            std::fs::write(&single, page(&[run]))?;
            browser.open(&single, "#theme=light")?;
            bands(browser)?;
            lost(browser)?;
            operations(browser)?;
            shot("operation.png")
        }),
        Step::new("the logs of all servers have their marks", || logs(browser)),
        Step::new("a second run comes from a file", || {
            from_a_file(browser, run, folder)?;
            shot("from-a-file.png")
        }),
        Step::new("a recording with real times, and a coordinator", || {
            real_times(browser, run, folder)?;
            shot("real-times.png")
        }),
        Step::new("a trace of real servers", || {
            real_servers(browser, binary, folder)?;
            shot("real-servers.png")
        }),
    ]
}

/// What each script finds: how many pixels of a box of a lane have a colour.
const PIXELS: &str = "
    const { painter, history, run, scroll } = app.stage;
    const count = (node, x, width, color) => {
        const lane = painter.layout.byNode.get(node);
        const probe = new OffscreenCanvas(1, 1).getContext('2d');
        probe.fillStyle = color; probe.fillRect(0, 0, 1, 1);
        const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
        const ratio = painter.canvas.width / painter.width;
        const { data } = painter.context.getImageData(Math.round(x * ratio),
            Math.round((lane.top + 2 - scroll.scrollTop) * ratio),
            Math.max(Math.round(width * ratio), 1), Math.round((lane.height - 4) * ratio));
        let found = 0;
        for (let at = 0; at < data.length; at += 4) {
            const far = Math.abs(data[at] - r) + Math.abs(data[at + 1] - g)
                + Math.abs(data[at + 2] - b);
            if (far < 60) found += 1;
        }
        return found;
    };
    app.escape();";

/// Each kind of band darkens its lane while it lasts, and not before.
fn bands(browser: &Browser) -> Result<()> {
    let script = format!(
        "{PIXELS}
        return [...new Set(run.bands.map((band) => band.kind))].map((kind) => {{
            const band = run.bands.find((one) => one.kind === kind && one.nodes.length > 0
                && run.nodes[one.nodes[0]].kind === 'server');
            if (!band) return [kind, 1, 1];
            const span = Math.max(band.to - band.from, 1e6);
            app.goTime(band.from - span / 2);
            app.show(band.from - span, band.to + span);
            app.render();
            const x = painter.x(band.from);
            // The line above a band has half of its colour.
            const edge = app.colors.paper === '#ffffff' ? '#aaa49e' : app.colors.fault;
            return [kind, count(band.nodes[0], x, painter.x(band.to) - x, edge), band.text];
        }});"
    );
    let kinds = browser.run(&script)?;
    let kinds = kinds.as_array().context("a list of kinds")?;
    ensure!(2 <= kinds.len(), "the run has few kinds of trouble: {kinds:?}");
    for kind in kinds {
        ensure!(kind[1].as_u64().is_some_and(|seen| 0 < seen), "this is not seen: {kind}");
    }
    println!("{} kinds of bands", kinds.len());
    Ok(())
}

/// A lost message is drawn, and what the pointer finds there is that message.
fn lost(browser: &Browser) -> Result<()> {
    let script = "const { painter, history, run, pointer } = app.stage;
        const event = history.lost.find((one) => history.target[one] >= 0);
        app.show(run.at[event] - 3e6, run.at[event] + 3e6);
        app.render();
        const end = painter.arrows.endOf(event);
        if (!end) return ['it is not drawn'];
        const hit = pointer.hit({ x: end[0], y: end[1] });
        return [hit?.event === event, run.fate[event]]";
    let seen = browser.run(script)?;
    ensure!(seen[0] == json!(true), "a lost message: {seen}");
    Ok(())
}

/// An operation is a box with a mark where it took effect; its panel says when that was.
fn operations(browser: &Browser) -> Result<()> {
    let script = format!(
        "{PIXELS}
        /* In its middle, no message of its own covers the mark. */
        const isMiddle = ({{ from, to, point }}) => point > from + (to - from) * 0.2
            && point < to - (to - from) * 0.2;
        const operation = run.operations.find((one) => one.point !== null && one.to !== null
            && one.outcome === 'ok' && isMiddle(one));
        const span = operation.to - operation.from;
        app.goTime(operation.from - span / 2);
        app.show(operation.from - span, operation.to + span);
        app.chooseOperation(operation);
        app.render();
        const x = painter.x(operation.point);
        const lane = painter.layout.byNode.get(operation.client);
        return [count(operation.client, x - 2, 4, app.colors.ink),
            count(operation.client, x + 9, 3, app.colors.ink), `index ${{operation.index}}`,
            painter.x(operation.from), lane.middle];"
    );
    let seen = browser.run(&script)?;
    let ink = |place: usize| seen[place].as_u64().unwrap_or(0);
    ensure!(8 <= ink(0) && ink(1) < ink(0), "the mark of its effect is not seen: {seen}");
    browser.settle()?;
    let panel = browser.text("#panel")?;
    let index = seen[2].as_str().context("an index")?;
    ensure!(panel.contains("took effect") && panel.contains(index), "the panel says: {panel}");
    Ok(())
}

/// The head of every server's log says how far it is committed, durable and applied, and each
/// entry has the mark that follows from that.
fn logs(browser: &Browser) -> Result<()> {
    browser.run("app.goTime((app.begin + app.end) / 2); return true")?;
    browser.settle()?;
    let script = "const { history, run, event } = app.stage;
        const servers = run.nodes.flatMap((node, at) => node.kind === 'server' ? [at] : []);
        const heads = [...document.querySelectorAll('table.logs thead .marks')];
        const rows = [...document.querySelectorAll('table.logs tbody tr')];
        const wrong = []; let seen = 0;
        servers.forEach((node, place) => {
            const { commit, durable, applied } = history.state(node, event);
            const head = `committed ${commit} · durable ${durable} · applied ${applied}`;
            if (heads[place].textContent !== head) wrong.push(head);
            for (const row of rows) {
                const index = Number(row.children[0].textContent);
                const mark = row.children[place + 1].querySelector('.mark');
                const entry = history.entry(node, index, event);
                if ((entry === null) !== (mark === null)) wrong.push([node, index]);
                if (!mark) continue;
                seen += 1;
                const says = index <= applied ? 'applied' : index <= commit ? 'committed'
                    : index <= durable ? 'durable' : 'in memory';
                if (mark.getAttribute('aria-label') !== says) wrong.push([node, index, says]);
            }
        });
        return [seen, wrong]";
    let seen = browser.run(script)?;
    ensure!(seen[1] == json!([]), "these are wrong: {}", seen[1]);
    ensure!(seen[0].as_u64().is_some_and(|count| 10 < count), "{} entries are shown", seen[0]);
    Ok(())
}

/// A second page is chosen, and its run is shown beside the first.
fn from_a_file(browser: &Browser, run: &Run, folder: &Path) -> Result<()> {
    let mut other = run.clone();
    "the run of a file".clone_into(&mut other.title);
    other.events[PARTING].kind = "Different".into();
    let file = folder.join("other.html");
    std::fs::write(&file, page(&[&other]))?;
    browser.choose_file("#file", &file)?;
    browser.wait("return app.stages.length === 2")?;
    ensure!(browser.run("return app.part")? == json!(PARTING), "the runs part elsewhere");
    let names = "return app.stages.map((stage) => stage.run.title)";
    ensure!(browser.run(names)? == json!([run.title, other.title]));
    let text = folder.join("no-run.html");
    std::fs::write(&text, "<p>no run</p>")?;
    browser.choose_file("#file", &text)?;
    browser.wait("return document.querySelector('#live').textContent.includes('no run in it')")?;
    browser.no_errors()
}

/// Times of a clock on the wall are shown as such, and a coordinator has a lane above the servers.
fn real_times(browser: &Browser, run: &Run, folder: &Path) -> Result<()> {
    let mut real = run.clone();
    real.clock = Clock::Wall;
    let coordinator = NodeId(u16::try_from(real.nodes.len())?);
    real.nodes.push(Node { name: "coord".to_owned(), kind: NodeKind::Coordinator });
    let mut event = real.events.last().context("events")?.clone();
    (event.node, event.cause, event.fate) = (coordinator, None, None);
    event.changes.clear();
    event.fields.clear();
    event.kind = "NewLeader".into();
    real.events.push(event);
    let file = folder.join("real.html");
    std::fs::write(&file, page(&[&real]))?;
    browser.open(&file, "")?;
    let about = browser.text("#about")?;
    ensure!(about.contains("real time"), "it says: {about}");
    let lanes = browser.run("return app.stage.painter.layout.lanes.map((lane) => lane.kind)")?;
    let lanes = lanes.as_array().context("lanes")?;
    let place = |kind: &str| lanes.iter().position(|lane| lane == kind);
    ensure!(place("coordinator") < place("server"), "the lanes are {lanes:?}");
    browser.keys("v0")?;
    browser.no_errors()
}

/// Three servers of the binary are traced, and what they did is looked at.
fn real_servers(browser: &Browser, binary: &Path, folder: &Path) -> Result<()> {
    let port = free_ports(1)?;
    let (log, shiviz) = (folder.join("trace_output.log"), folder.join("shiviz_output.log"));
    let listen = format!("127.0.0.1:{port}");
    let mut command = Command::new(binary);
    command.args(["tracing-server", "--listen", &listen, "--output-file"]).arg(&log);
    let mut tracing = Guard::start(command.arg("--shiviz-output-file").arg(&shiviz))?;
    wait_for("the tracing server", PATIENCE, || Ok(std::net::TcpStream::connect(&listen)?))?;
    let set = format!("tracing-server={listen}");
    let count = SERVER_COUNT.to_string();
    let data = folder.join("traced");
    let arguments = ["cluster", "-n", &count, "--set", &set];
    let mut cluster = Cluster::start(binary, &arguments, &data, Cluster::free_ports()?)?;
    for number in 0..10 {
        cluster.etcdctl(&["put", &format!("key{number}"), "value"])?;
    }
    cluster.stop()?;
    tracing.stop("INT", Duration::from_secs(20))?;
    let file = folder.join("real-servers.html");
    let mut command = Command::new(binary);
    output(command.args(["trace", "convert", "--to", "html"]).arg(&log).arg("-o").arg(&file))?;
    browser.open(&file, "")?;
    let script = "const { run, history } = app.stage;
        const servers = run.nodes.flatMap((node, at) => node.kind === 'server' ? [at] : []);
        const leads = servers.some((node) => {
            const { spans } = history.servers[node];
            return spans.role.includes(3);
        });
        return [servers.length, leads, run.count, history.arrivals.some((one) => one.events.length > 0)]";
    let seen = browser.run(script)?;
    ensure!(seen[0] == json!(SERVER_COUNT) && seen[1] == json!(true), "it shows {seen}");
    ensure!(seen[3] == json!(true), "no message arrives: {seen}");
    println!("{} events of real servers", seen[2]);
    browser.run("app.search('key3'); return true")?;
    let found = browser.run("return app.stage.found.events.length")?;
    ensure!(found.as_u64().is_some_and(|found| 0 < found), "nothing speaks of key3");
    browser.no_errors()
}
