//! The viewer in a real browser: Debian's Chromium, driven through DevTools.
//!
//! Why: what a page shows and how fast it does can be told by a browser alone. What it decodes and
//! derives is compared with the same derived here from the model, so that neither checks itself.
//!
//! Screenshots stay in `target/viewer/`, for people.

mod browser;
mod devtools;
mod expected;
mod live;
mod million;
mod pictures;
mod sights;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use kvraft_trace::run::{Event, EventId, Fate, Run, Violation, page, runs_of};
use serde_json::{Value, json};

pub use self::pictures::pictures;

use self::browser::Browser;
use crate::run::{Step, build_release, need, output, run_steps, target_folder};

/// Opens the viewer in Chromium and checks what it shows, with `binary` or a released build; if
/// `is_million_only`, nothing but how fast a million events are.
///
/// # Errors
/// The first check that failed, or the program that is missing.
pub fn viewer(root: &Path, is_million_only: bool, binary: Option<PathBuf>) -> Result<()> {
    need("chromium", "chromium")?;
    need("etcdctl", "etcd-client")?;
    let binary = binary.map_or_else(|| build_release(root), Ok)?;
    let pictures = target_folder(root)?.join("viewer");
    std::fs::create_dir_all(&pictures)?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let browser = Browser::start()?;
    let shot = |name: &str| browser.screenshot(&pictures.join(name));
    let run = recorded(&binary, folder.path())?;
    let paths = write_pages(&run, folder.path())?;
    let mut steps = Vec::new();
    if !is_million_only {
        steps.extend(of_one_run(&browser, &run, &paths, &shot));
        steps.extend(sights::steps(&browser, &run, &binary, folder.path(), &shot));
        steps.extend(of_a_live_run(&browser, &binary, folder.path(), &shot)?);
    }
    steps.push(Step::new("a million events", || {
        let page = million::open(&browser, &binary, folder.path())?;
        million::fast_enough(&browser, &page, !is_million_only)?;
        shot("million.png")?;
        million::nothing_rare_is_hidden(&browser)?;
        browser.no_errors()
    }));
    run_steps(steps)?;
    println!("pictures: {}", pictures.display());
    Ok(())
}

fn of_a_live_run<'a>(
    browser: &'a Browser,
    binary: &'a Path,
    folder: &'a Path,
    shot: &'a dyn Fn(&str) -> Result<()>,
) -> Result<Vec<Step<'a>>> {
    let served = Rc::new(RefCell::new(live::Served::start(binary)?));
    let (asked, kept) = (Rc::clone(&served), Rc::clone(&served));
    Ok(vec![
        Step::new("a live run answers to its own page alone", move || {
            asked.borrow().refuses_others()
        }),
        Step::new("a live run is stepped, run and paused", move || {
            live::open(browser, &served.borrow())?;
            live::goes_on(browser)?;
            shot("live.png")
        }),
        Step::new("clicks break and mend, and are undone", || live::is_meddled_with(browser)),
        Step::new("what was clicked is saved and replayed", move || {
            live::is_saved(browser, binary, folder)?;
            shot("live-crash.png")?;
            kept.borrow_mut().ends()?;
            browser.wait("return app.live.status.ending === 'the program has ended'")
        }),
    ])
}

fn of_one_run<'a>(
    browser: &'a Browser,
    run: &'a Run,
    paths: &'a Pages,
    shot: &'a dyn Fn(&str) -> Result<()>,
) -> Vec<Step<'a>> {
    vec![
        Step::new("the page opens and shows what was recorded", || {
            browser.open(&paths.single, "")?;
            shows_the_run(browser, run)?;
            shot("run.png")
        }),
        Step::new("states and logs are those of the model", || states(browser, run)),
        Step::new("jump to the first violation", || {
            jump(browser, run)?;
            shot("violation.png")
        }),
        Step::new("the causal cone", || {
            cone(browser, run)?;
            shot("cone.png")
        }),
        Step::new("search and filter", || {
            filter(browser, run)?;
            shot("filter.png")
        }),
        Step::new("the mouse: click, wheel, drag, minimap, scrub, play", || mouse(browser, run)),
        Step::new("the history of a key", || {
            key(browser, run)?;
            shot("key.png")
        }),
        Step::new("every key works, and the help names it", || {
            keyboard(browser)?;
            shot("help.png")
        }),
        Step::new("an address leads to exactly this view", || address(browser, &paths.single)),
        Step::new("the table says the same, in the dark too", || {
            table(browser, run)?;
            shot("table.png")?;
            browser.keys("tk")?;
            shot("dark.png")
        }),
        Step::new("two runs part at the first event that differs", || {
            browser.open(&paths.both, "")?;
            compare(browser)?;
            shot("compare.png")
        }),
    ]
}

struct Pages {
    single: PathBuf,
    both: PathBuf,
}

/// A run with faults and elections, as the command records it, and with a violation in the middle.
fn recorded(binary: &Path, folder: &Path) -> Result<Run> {
    let page = folder.join("recorded.html");
    let page_text = page.to_str().context("a temporary folder has a name")?;
    let words = ["sim", "--seed", "9", "-n", "5", "--ops-max", "30", "--html", page_text];
    output(Command::new(binary).args(words))?;
    let mut runs = runs_of(&std::fs::read_to_string(&page)?)?;
    let mut run = runs.pop().context("a page has a run")?;
    let middle = run.events.len() / 2;
    let is_arrival = |event: &Event| event.cause.is_some() && event.fate.is_none();
    let event = (middle..run.events.len()).find(|at| is_arrival(&run.events[*at]));
    let event = event.context("messages arrive in the second half of a run")?;
    run.violations.push(Violation {
        at: run.events[event].at,
        event: Some(EventId(u32::try_from(event)?)),
        nodes: vec![run.events[event].node],
        check: "one-leader-per-term".into(),
        text: "this rule was not broken: the page is shown how it would look".into(),
    });
    Ok(run)
}

/// Where the second of the compared runs parts from the first.
const PARTING: usize = 700;

fn write_pages(run: &Run, folder: &Path) -> Result<Pages> {
    let (single, both) = (folder.join("single.html"), folder.join("both.html"));
    std::fs::write(&single, page(&[run]))?;
    let mut other = run.clone();
    other.title = "the other run".to_owned();
    other.events[PARTING].kind = "Different".into();
    std::fs::write(&both, page(&[run, &other]))?;
    Ok(Pages { single, both })
}

/// Every event is decoded as it was written.
fn shows_the_run(browser: &Browser, run: &Run) -> Result<()> {
    let script = "const { run } = app.stage;
        return import('viewer/decode.js').then(({ fieldsOf, isReceive }) =>
            Array.from(run.at, (at, event) => [at, run.nodes[run.node[event]].name,
                run.shapes[run.shape[event]].kind, run.cause[event], run.fate[event],
                isReceive(run, event) ? [] : fieldsOf(run, event).map(([n, v]) => `${n}=${v}`)]));";
    let shown = browser.run(script)?;
    let shown = shown.as_array().context("a list of events")?;
    ensure!(shown.len() == run.events.len(), "{} events are shown", shown.len());
    for (event, shown) in run.events.iter().zip(shown) {
        let expected = expected::event(run, event);
        ensure!(*shown == expected, "an event is {expected}, the viewer has {shown}");
    }
    println!("{} events", shown.len());
    let operations = browser.run("return app.stage.run.operations.length")?;
    ensure!(operations == json!(run.operations.len()), "{operations} operations are shown");
    let bands = browser.run("return app.stage.run.bands.length")?;
    ensure!(bands == json!(run.bands.len()), "{bands} bands are shown");
    ensure!(browser.run("return app.stage.painter.layout.lanes.length")? == json!(run.nodes.len()));
    Ok(())
}

/// After every hundredth event every server's state and log is what its changes make of it.
fn states(browser: &Browser, run: &Run) -> Result<()> {
    let script = "const { history } = app.stage; const event = arguments[0];
        return history.servers.flatMap((server, node) => server ? [node] : []).map((node) => {
            const { progress, ...state } = history.state(node, event);
            const log = [];
            for (let index = state.first; index <= state.last; index++) {
                const entry = history.entry(node, index, event);
                log.push(entry ? `${entry.index}@${entry.term}` : null);
            }
            return { ...state, log };
        });";
    let mut replay = expected::Replay::new(run);
    for (number, event) in run.events.iter().enumerate() {
        replay.apply(event);
        if number % 100 == 0 || number + 1 == run.events.len() {
            let shown = browser.run_with(script, &[json!(number)])?;
            let expected = replay.states();
            ensure!(shown == expected, "after event {number}: {expected}, the viewer has {shown}");
        }
    }
    Ok(())
}

fn jump(browser: &Browser, run: &Run) -> Result<()> {
    let violation = &run.violations[0];
    let event = violation.event.context("this one is of an event")?.0;
    browser.keys("v")?;
    ensure!(browser.run("return app.stage.event")? == json!(event), "v leads to the violation");
    let panel = browser.text("#panel")?;
    ensure!(panel.contains(&*violation.check), "the panel says what was broken: {panel}");
    let is_visible = "return app.view.from < app.view.now && app.view.now < app.view.to";
    ensure!(browser.run(is_visible)? == json!(true), "the violation is in view");
    browser.click("#verdict")?;
    ensure!(browser.run("return app.stage.event")? == json!(event), "the button leads there, too");
    Ok(())
}

fn cone(browser: &Browser, run: &Run) -> Result<()> {
    browser.keys("c")?;
    let event = browser.run("return app.stage.event")?.as_u64().context("an event")?;
    let script = "const { cone } = app.stage; return [Array.from(cone.before),
        Array.from(cone.after, (event) => event === Infinity ? -1 : event)];";
    let expected = expected::cone(run, usize::try_from(event)?);
    let shown = browser.run(script)?;
    ensure!(shown == expected, "the cone of {event} is {expected}, the viewer has {shown}");
    Ok(())
}

fn filter(browser: &Browser, run: &Run) -> Result<()> {
    browser.keys("c/")?;
    browser.keys("kind:Append node:s2 -fate:lost")?;
    browser.wait("return app.view.query.endsWith('lost')")?;
    let is_meant = |event: &&Event| {
        event.kind.starts_with("Append")
            && run.nodes[usize::from(event.node.0)].name == "server2"
            && event.fate != Some(Fate::Lost)
    };
    let expected = run.events.iter().filter(is_meant).count();
    let shown = browser.run("return app.stage.found.events.length")?;
    ensure!(shown == json!(expected) && 0 < expected, "{shown} of {expected} were found");
    // Escape leaves the field; n and N go on and back, o shows nothing else.
    browser.press("Escape")?;
    let before = browser.run("return app.stage.event")?;
    browser.keys("n")?;
    let there = browser.run("return [app.stage.event, app.stage.found.mask[app.stage.event]]")?;
    ensure!(there[0] != before && there[1] == json!(1), "n leads to a match: {there}");
    browser.keys("No")?;
    ensure!(browser.run("return app.view.only")? == json!(true), "o shows only what matches");
    browser.run("app.search(''); app.toggleOnly(); return true")?;
    for query in ["term:1", "key:k1", "is:rare", "\"no more faults\""] {
        browser.run_with("app.search(arguments[0]); return true", &[json!(query)])?;
        let found = browser.run("return app.stage.found.events.length")?;
        ensure!(found.as_u64().is_some_and(|found| 0 < found), "{query} finds nothing");
    }
    browser.run("app.search(''); return true").map(|_| ())
}

/// What a person does with a mouse leads where it should.
fn mouse(browser: &Browser, run: &Run) -> Result<()> {
    // An event of a server, close up, is selected by a click on it.
    let is_meant = |event: &&Event| &*event.kind == "BecameLeader";
    let event = run.events.iter().position(|event| is_meant(&event)).context("somebody leads")?;
    let script = "app.go(arguments[0]); app.frame(); app.escape(); return true";
    browser.run_with(script, &[json!(event)])?;
    browser.settle()?;
    let place = browser.run_with(PLACE_OF_EVENT, &[json!(event)])?;
    browser.click_at(&place[0], &place[1])?;
    let there = browser.run("return [app.stage.event, app.view.isSelected]")?;
    ensure!(there == json!([event, true]), "a click on event {event} selects {there}");
    let panel = browser.text("#panel")?;
    ensure!(panel.contains("BecameLeader") && panel.contains("before"), "the panel says: {panel}");
    // The wheel zooms about the pointer, and a drag moves.
    let span = "return app.view.to - app.view.from";
    let number = |value: Value| value.as_f64().context("a number");
    let before = number(browser.run(span)?)?;
    browser.wheel(&place[0], &place[1], -300.0)?;
    ensure!(number(browser.run(span)?)? < before * 0.8, "the wheel zooms");
    let from = number(browser.run("return app.view.from")?)?;
    let to_the_left = json!(place[0].as_f64().context("a place")? - 200.0);
    browser.mouse("mousePressed", &place[0], &place[1])?;
    browser.mouse("mouseMoved", &to_the_left, &place[1])?;
    browser.mouse("mouseReleased", &to_the_left, &place[1])?;
    browser.settle()?;
    ensure!(from < number(browser.run("return app.view.from")?)?, "a drag moves");
    // The strip below leads elsewhere.
    let from = number(browser.run("return app.view.from")?)?;
    browser.click(".minimap")?;
    ensure!(from != number(browser.run("return app.view.from")?)?, "the strip leads elsewhere");
    // The moment is scrubbed and played.
    browser.run(
        "const bar = document.querySelector('#scrub'); bar.value = 5000;
        bar.dispatchEvent(new Event('input')); return true",
    )?;
    let share = "return (app.view.now - app.begin) / (app.end - app.begin)";
    ensure!(
        (number(browser.run(share)?)? - 0.5).abs() < 0.01,
        "half of the bar is half of the run"
    );
    browser.click("#play")?;
    browser.wait("return (app.view.now - app.begin) / (app.end - app.begin) > 0.501")?;
    browser.click("#play")?;
    ensure!(browser.run("return app.playing")?.is_null(), "a second click ends it");
    browser.no_errors()
}

/// Where an event is in the window.
const PLACE_OF_EVENT: &str = "const { painter, canvas, run, scroll } = app.stage;
    const box = canvas.getBoundingClientRect();
    const lane = painter.layout.byNode.get(run.node[arguments[0]]);
    return [box.left + painter.x(run.at[arguments[0]]), box.top + lane.middle - scroll.scrollTop];";

/// Every operation on a key is listed, in the order in which they took effect.
fn key(browser: &Browser, run: &Run) -> Result<()> {
    let key = run.operations.iter().find_map(|one| one.keys.first()).context("a key")?;
    browser.keys("2")?;
    browser.run_with("app.chooseKey(arguments[0]); return true", &[json!(&**key)])?;
    browser.settle()?;
    let mut expected: Vec<_> = run.operations.iter().filter(|one| one.keys.contains(key)).collect();
    expected.sort_by_key(|one| one.point.map_or(one.from, |point| point.at));
    let expected: Vec<&str> = expected.iter().map(|one| &*one.text).collect();
    let script = "return Array.from(document.querySelectorAll('table.key tbody tr'),
        (row) => row.children[1].textContent)";
    let shown = browser.run(script)?;
    ensure!(shown == json!(expected), "{key}: {expected:?}, the panel has {shown}");
    browser.keys("1").map(drop)
}

fn keyboard(browser: &Browser) -> Result<()> {
    let keys = browser.run("return import('viewer/keys.js').then(({ KEYS }) => KEYS)")?;
    for row in keys.as_array().context("a list of keys")? {
        let key = row[0].as_str().context("a key")?;
        let action = row[1].as_str().context("an action")?;
        let exists = "return typeof app[arguments[0]] === 'function'";
        ensure!(browser.run_with(exists, &[json!(action)])? == json!(true), "{key}: {action}");
        let script = "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: arguments[0],
            bubbles: true })); return true";
        // Asking for the clipboard opens a question, which only a person answers.
        if action != "copyLink" {
            browser.run_with(script, &[json!(key)])?;
        }
        if action == "help" {
            ensure!(browser.text("#keys")?.contains("jump to the first violation"));
            browser.run("app.help(); return true")?;
        }
    }
    browser.no_errors()?;
    browser.run("if (app.playing) app.play(); app.whole(); app.help(); return true")?;
    ensure!(browser.run("return document.querySelector('#help').open")? == json!(true));
    Ok(())
}

fn address(browser: &Browser, page: &Path) -> Result<()> {
    browser.open(page, "")?;
    browser.run("app.go(900); app.show(1e9, 2e9); app.search('term:1'); return true")?;
    browser.keys("c2")?;
    browser
        .wait("return location.hash.includes('event=900') && location.hash.includes('tab=key')")?;
    let view = "const { from, to, now, query, cone, tab } = app.view;
        return { from, to, now, query, cone, tab, event: app.stage.event }";
    let before = browser.run(view)?;
    let hash = browser.run("return location.hash")?;
    browser.open(page, hash.as_str().context("a fragment")?)?;
    let after = browser.run(view)?;
    ensure!(before == after, "{hash} leads to {after} instead of {before}");
    Ok(())
}

fn table(browser: &Browser, run: &Run) -> Result<()> {
    // What was searched for last need not match the violation.
    browser.run("app.search(''); return true")?;
    browser.keys("vt")?;
    browser.wait("return document.querySelector('table.events tr.selected') !== null")?;
    let row = browser.text("table.events tr.selected")?;
    ensure!(row.contains(&*run.violations[0].check), "the row says what was broken: {row}");
    let headed = "return document.querySelectorAll('table.events th[scope=col]').length";
    ensure!(browser.run(headed)? == json!(6), "each column has a head");
    Ok(())
}

fn compare(browser: &Browser) -> Result<()> {
    ensure!(browser.run("return app.part")? == json!(PARTING), "the runs part elsewhere");
    ensure!(browser.run("return app.stages.length")? == json!(2));
    browser.keys("xp")?;
    let there = browser.run("return [app.active, app.stage.event]")?;
    ensure!(there == json!([1, PARTING]), "p leads to where they part: {there}");
    browser.no_errors()
}
