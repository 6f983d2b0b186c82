"""The page itself: which fields and buttons there are, and which function each of them calls."""

import html
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from lit_mimdit.demo_page.session import Refused, Session
from lit_mimdit.demo_page.workbench import Result, Settings
from lit_mimdit.inference.sampler import Colour

TITLE = "MiM-DiT: restore photographs, and see the routers decide"
QUEUE = 16  # requests that wait; more are refused
PROGRESS = gr.Progress()
IMAGES = ["image", ".tif", ".tiff", ".heic", ".heif", ".jp2", ".avif"]


def paths_of(files: Any) -> list[Path]:
    """Returns the uploaded files of a field; none where it is empty."""
    if files is None:
        return []
    return [Path(file) for file in (files if isinstance(files, list) else [files])]


def lines(texts: list[str]) -> str:
    """Returns lines about what did not work as HTML, the texts of files escaped."""
    return "".join(f'<p class="said">{html.escape(text)}</p>' for text in texts)


def reporting(progress: gr.Progress) -> Any:
    """Returns what takes a share of the work and a sentence, and shows both."""
    return lambda share, said: progress(min(share, 1.0), desc=said)


class Controls:
    """The fields of the settings, the same in several tabs."""

    def __init__(self, session: Session) -> None:
        bench = session.bench
        self.names: list[str] = ["seed"]
        self.fields: list[Any] = [gr.Number(0, label="seed", precision=0, minimum=0)]
        if not bench.samples:
            return
        config = bench.restorer.config
        limit = bench.restorer.network.backbone.config.pos_embed_max_size * bench.restorer.multiple
        self._add("steps", gr.Slider(1, 50, config.steps, step=1, label="steps"))
        tile = {"step": bench.restorer.multiple, "label": "tile, pixels"}
        self._add("tile", gr.Slider(bench.restorer.multiple * 4, limit, config.tile, **tile))
        colours = [("off", "none"), *((name, name) for name in get_args(Colour) if name != "none")]
        self._add("colour", gr.Dropdown(colours, value=config.colour, label="colour correction"))
        if bench.restorer.corrector is not None:
            weight = bench.restorer.corrector.weight
            self._add("fidelity_weight", gr.Slider(0, 1, weight, label="fidelity weight"))
        if bench.knows_text:
            self._add("prompt", gr.Textbox("", label="prompt"))
            self._add("guidance", gr.Slider(0, 10, config.guidance, label="guidance"))

    def _add(self, name: str, field: Any) -> None:
        self.names.append(name)
        self.fields.append(field)

    def settings(self, values: list[Any]) -> Settings:
        """Returns what the fields say."""
        given = dict(zip(self.names, values, strict=True))
        for name in ("seed", "steps", "tile"):
            if name in given:
                given[name] = int(given[name] or 0)
        return Settings(**given)


def build(session: Session, examples: dict[str, Path]) -> gr.Blocks:
    """Returns the page of a session, with examples by caption."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Tab("restore"):
            _restore_tab(session, examples)
        with gr.Tab("compare systems"):
            _compare_tab(session)
        with gr.Tab("folder"):
            _folder_tab(session)
    page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def _cancel(session: Session, button: Any, said: Any, events: list[Any]) -> None:
    """A cancel button: takes a waiting request out of the queue, and stops a running one."""

    def cancel(request: gr.Request) -> str:
        running = session.cancel(str(request.session_hash))
        return lines(["cancelled" if running else "nothing is running"])

    # gradio only takes a waiting request out of the queue: a running one is stopped by the session
    button.click(cancel, None, said, cancels=events, queue=False, api_visibility="private")


def _restore_tab(session: Session, examples: dict[str, Path]) -> None:
    bench = session.bench
    results = gr.State([])
    with gr.Row():
        with gr.Column(scale=1):
            files = gr.File(
                label="photographs", file_count="multiple", file_types=IMAGES, elem_id="photographs"
            )
            gallery = gr.Gallery(
                [(str(path), caption) for caption, path in examples.items()],
                label="or click one of ours",
                columns=2,
                height="auto",
                allow_preview=False,
                interactive=False,
                elem_id="examples",
            )
            controls = Controls(session)
            with gr.Row():
                start = gr.Button("Restore", variant="primary", elem_id="restore")
                stop = gr.Button("Cancel", elem_id="cancel")
            said = gr.HTML(min_height=70, elem_id="said")
        with gr.Column(scale=2):
            choice = gr.Dropdown([], label="restored photographs", elem_id="choice")
            view = gr.HTML(elem_id="view")
            download = gr.File(label="download", interactive=False, elem_id="download")
            why = gr.HTML(elem_id="why", label="routers")
    known = list(examples.values())

    def pick(event: gr.SelectData) -> list[str]:
        return [str(known[event.index])]

    gallery.select(pick, None, files, api_visibility="private")

    def run(
        request: gr.Request, progress: gr.Progress = PROGRESS, given: Any = None, *values: Any
    ) -> tuple:
        try:
            done, failed = session.restore(
                str(request.session_hash),
                paths_of(given),
                controls.settings(list(values)),
                reporting(progress),
            )
        except Refused as error:
            return [], lines([str(error)]), gr.update(), gr.update(), gr.update(), gr.update()
        names = [f"{number + 1}. {result.name}" for number, result in enumerate(done)]
        files = [str(result.after) for result in done]
        chosen = gr.update(choices=names, value=names[0])
        first = done[0]
        return (
            done,
            lines([*failed, f"restored: {len(done)}"]),
            chosen,
            session.shown(first),
            files,
            session.shown_routing(first),
        )

    outputs = [results, said, choice, view, download, why]
    event = start.click(
        run, [files, *controls.fields], outputs, api_name="restore", show_progress_on=said
    )
    _cancel(session, stop, said, [event])

    def look(done: list[Result], name: str) -> tuple[str, str]:
        if not done or not name:
            return "", ""
        result = done[int(name.split(".")[0]) - 1]
        return session.shown(result), session.shown_routing(result)

    choice.input(look, [results, choice], [view, why], api_visibility="private")
    if bench.has_routers:
        _what_if(session, controls, files)


def _what_if(session: Session, controls: Controls, files: Any) -> None:
    """Sliders that overrule the routers, and the photograph restored once more beside it."""
    bench = session.bench
    with gr.Accordion("What if the routers decided otherwise?", open=False, elem_id="what_if"):
        overruled = gr.CheckboxGroup(
            bench.groups,
            label="groups whose weight you set; the others keep the router's",
            elem_id="overruled",
        )
        with gr.Row():
            weights = [
                gr.Slider(0, 1, 0, step=0.05, label=f"weight of {group}", elem_id=f"weight_{group}")
                for group in bench.groups
            ]
        with gr.Row():
            numbers = [str(expert) for expert in range(bench.experts)]
            experts = [
                gr.CheckboxGroup(numbers, label=f"sub-experts of {group}; none: the router's")
                for group in bench.groups
            ]
        with gr.Row():
            start = gr.Button("Restore both ways", elem_id="restore_both")
            stop = gr.Button("Cancel")
        said = gr.HTML(min_height=70, elem_id="said_if")
        view = gr.HTML(elem_id="view_if")
        download = gr.File(label="download", interactive=False)
    count = len(bench.groups)

    def run(
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
        given: Any = None,
        chosen: Any = None,
        *values: Any,
    ) -> tuple:
        settings = controls.settings(list(values[2 * count :]))
        inter = {
            group: float(weight)
            for group, weight in zip(bench.groups, values[:count], strict=True)
            if group in chosen
        }
        picked = dict(zip(bench.groups, values[count : 2 * count], strict=True))
        intra = {group: list(map(int, own)) for group, own in picked.items() if own}
        paths = paths_of(given)
        try:
            if not paths:
                raise Refused("no photograph is chosen: drop one, or click an example")
            both = session.what_if(
                str(request.session_hash),
                paths[0],
                Settings(**(vars(settings) | {"inter": inter, "intra": intra})),
                reporting(progress),
            )
        except Refused as error:
            return lines([str(error)]), gr.update(), gr.update()
        return lines([]), session.shown_what_if(*both), str(both[1].after)

    inputs = [files, overruled, *weights, *experts, *controls.fields]
    event = start.click(
        run, inputs, [said, view, download], api_name="what_if", show_progress_on=said
    )
    _cancel(session, stop, said, [event])


def _compare_tab(session: Session) -> None:
    names = session.systems.names
    with gr.Row():
        photo = gr.File(label="photograph", file_types=IMAGES, elem_id="compared")
        reference = gr.File(
            label="reference of the same size, if there is one",
            file_types=IMAGES,
            elem_id="reference",
        )
    systems = gr.CheckboxGroup(names, value=names[:1], label="systems")
    seed = gr.Number(0, label="seed", precision=0, minimum=0)
    with gr.Row():
        start = gr.Button("Compare", variant="primary", elem_id="compare")
        stop = gr.Button("Cancel")
    said = gr.HTML(min_height=70, elem_id="said_compare")
    view = gr.HTML(elem_id="view_compare")

    def run(
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
        given: Any = None,
        clean: Any = None,
        chosen: Any = None,
        number: Any = None,
    ) -> tuple:
        paths, references = paths_of(given), paths_of(clean)
        try:
            if not paths:
                raise Refused("no photograph is chosen: drop one")
            rows = session.compare(
                str(request.session_hash),
                paths[0],
                references[0] if references else None,
                chosen,
                int(number or 0),
                reporting(progress),
            )
        except Refused as error:
            return lines([str(error)]), gr.update()
        return lines([]), session.shown_comparison(rows)

    event = start.click(
        run,
        [photo, reference, systems, seed],
        [said, view],
        api_name="compare",
        show_progress_on=said,
    )
    _cancel(session, stop, said, [event])


def _folder_tab(session: Session) -> None:
    files = gr.File(label="a folder", file_count="directory", elem_id="folder_files")
    controls = Controls(session)
    with gr.Row():
        start = gr.Button("Restore all", variant="primary", elem_id="restore_all")
        stop = gr.Button("Cancel")
    said = gr.HTML(min_height=70, elem_id="said_folder")
    table = gr.Dataframe(label="scores without a reference", interactive=False, elem_id="scores")
    download = gr.File(label="ZIP", interactive=False, elem_id="zip")

    def run(
        request: gr.Request, progress: gr.Progress = PROGRESS, given: Any = None, *values: Any
    ) -> tuple:
        try:
            made = session.folder(
                str(request.session_hash),
                paths_of(given),
                controls.settings(list(values)),
                reporting(progress),
            )
        except Refused as error:
            return lines([str(error)]), gr.update(), gr.update()
        said = lines([*made.notes, f"restored: {len(made.rows)}"])
        return said, gr.update(headers=made.head, value=made.rows), str(made.zip)

    event = start.click(
        run,
        [files, *controls.fields],
        [said, table, download],
        api_name="folder",
        show_progress_on=said,
    )
    _cancel(session, stop, said, [event])
