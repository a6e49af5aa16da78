"""Joining the parts that a configuration names: the one place where a plug-in is made.

A plug-in class says how it is made in a class method `from_config(config, parts)`, where `config` is its checked
`Config` and `parts` holds what is made already, in the order task, space, device, stages of the recipe, measures,
evaluators, controller. A plain function is called with its keys. The task first, and then the space, may bring
baselines, files for candidates and checks of the whole: the capabilities `HasBaselines`, `Exports` and `ChecksParts` of
`rankitect.contracts.task`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rankitect.config.alternatives import controllers_for, refuse_settings
from rankitect.config.bindings import Bindings
from rankitect.config.choices import declared_choices
from rankitect.config.measures import Measures, own_measure
from rankitect.config.stages import check_choices, check_spaces
from rankitect.contracts import (
    BoundsCosts,
    Controller,
    Device,
    Evaluator,
    FromConfig,
    LacksCapability,
    TrainsAsConfigured,
    TrainsInPrepare,
    WrapsEvaluators,
    offers,
    require,
)
from rankitect.contracts.capability import missing_members
from rankitect.contracts.hooks import ChecksParts, Exports, ExportsBaselines, HasBaselines
from rankitect.contracts.measure import Measure
from rankitect.contracts.plugin import DecodesArchitectures
from rankitect.contracts.requirement import NeedsCapabilities
from rankitect.contracts.stage import Stage
from rankitect.contracts.task import HasSearchLoss, ReadsChoices
from rankitect.errors import ConfigError, RankitectError, SpaceError, short

if TYPE_CHECKING:
    from pathlib import Path

    from rankitect.config import Plugin, Resolved
    from rankitect.config.schema import SearchConfig
    from rankitect.contracts import Baseline, Exporter
    from rankitect.graph import SearchSpace
    from rankitect.space.choice_space import ChoiceSpace

__all__ = ["Parts", "architecture_from", "build", "make_task"]

C = TypeVar("C")
_ROLES: Mapping[str, type] = {
    "controller": Controller,
    "evaluator": Evaluator,
    "device": Device,
    "recipe": Stage,
    "measures": Measure,
}
"""What a section's plug-in must be, by the first word of the section."""
_EVALUATORS = ("evaluator.screen", "evaluator.proxy", "evaluator.final")


@dataclass
class Parts:
    """The parts of a search, as far as they are made.

    Attributes:
        config: The core's configuration: `constraints`, `seed` and so on.
        folder: The run folder, for parts that keep caches of their own in it.
        say: Shows a sentence to the user.
        names: Names of the parts for reports, by section.
        task: What the model is for; whoever needs something of it asks with `require`.
        space: The search space; None until it is made, which is after the task. Parts that build models from its graph
            take `graph_space`.
        stages: The stages of the recipe by name, in order; `stages_for` gives those of one architecture.
        stage_plugins: What the stages are made from, by name.
        measures: What models are asked beside the task's quality; evaluators ask it of the models that they make.
        evaluators: Evaluators by the key that proposals use: "final" and, if configured, "screen" and
            "proxy".
        controller: The search method.
        device: Where latency is measured; None where it is not.
        baselines: Models to compare with.
        export: Writes more files for each candidate.
        export_baseline: Writes the program of a baseline, where there is a device to time it on.
        decode: Makes an architecture from its JSON.
        bindings: Settings that the space's choices decide.
        trains_weights: Whether the controller trains weights for candidates to inherit before any is measured.
        relaxes: Whether the controller chooses architectures by the loss of the relaxed supernet.
        stop: Whether the user asked to stop, for work that takes minutes outside of a measurement.
    """

    config: SearchConfig
    folder: Path
    say: Callable[[str], None] = print
    names: Mapping[str, str] = field(default_factory=dict)
    task: object = None
    space: ChoiceSpace = None  # type: ignore[assignment]  # made after the task, which may ask for it only later
    stages: dict[str, Stage] = field(default_factory=dict)
    stage_plugins: dict[str, Plugin] = field(default_factory=dict)
    measures: Measures = field(default_factory=Measures)
    evaluators: dict[str, Evaluator] = field(default_factory=dict)
    controller: Controller | None = None
    device: Device | None = None
    baselines: list[Baseline] = field(default_factory=list)
    export: Exporter | None = None
    export_baseline: Exporter | None = None
    decode: Callable[[str], Any] | None = None
    bindings: Bindings = field(default_factory=Bindings)
    trains_weights: bool = False
    relaxes: bool = False
    stop: Callable[[], bool] = lambda: False

    @property
    def graph_space(self) -> SearchSpace:
        """The search space, for a part that builds models from its graph.

        Raises:
            ConfigError: It has no graph.
        """
        from rankitect.graph import SearchSpace

        if not isinstance(self.space, SearchSpace):
            name, task = self.names.get("space", "?"), self.names.get("task", "?")
            raise ConfigError(
                f"space={name} has no graph, and task={task} with the configured evaluators builds models from one. "
                "Choose a space with a graph, or a task with a model of its own whose settings are searched."
            )
        return self.space

    def stages_for(self, architecture: Any) -> dict[str, Stage]:
        """The stages of the recipe for one architecture, whose choices may decide some of their settings.

        Raises:
            RankitectError: The values are each allowed, but not together, or not in the models of the space.
        """
        stages = {}
        for name, plugin in self.stage_plugins.items():
            section = f"recipe.{name}"
            config = self.bindings.applied(section, plugin.config, architecture)
            same = config is plugin.config
            stages[name] = self.stages[name] if same else _stage(section, replace(plugin, config=config), self)
        if any(stage is not self.stages[name] for name, stage in stages.items()):
            check_spaces(stages, self.space)
        return stages

    def require(self, capability: type[C], section: str) -> C:
        """The task, as something that has what a part needs of it.

        Args:
            capability: A Protocol of `rankitect.contracts.task`.
            section: Which part needs it: "controller", "space", "evaluator.final" …

        Raises:
            ConfigError: The task lacks it; names the part, the task, what is lacking, and what would work.
        """
        if offers(self.task, capability):
            return self.task
        who = f"{section}={self.names[section]}" if section in self.names else f"the {section}"
        instead = ""
        if section == "space":
            instead = "Leave task= out to take the space's own."
        elif section == "controller":
            instead = f"Controllers that work with it: {', '.join(controllers_for(self.task, self.space)) or 'none'}."
        return require(self.task, capability, who, called=self.names.get("task", ""), instead=instead)


def build(
    resolved: Resolved,
    folder: Path,
    say: Callable[[str], None] = print,
    *,
    measuring: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Parts:
    """Make all parts of a search. This is where heavy packages are imported and assets fetched.

    Args:
        resolved: The checked configuration.
        folder: The run folder.
        say: Shows a sentence to the user.
        measuring: Only what measures: no baselines or exporter, and a controller only where it changes evaluators.
        stop: Whether the user asked to stop.

    Raises:
        StopRequested: The user did.
        RankitectError: A part cannot be made from what the user gave.
    """
    plugins = resolved.plugins
    parts = Parts(resolved.config, folder, say, {section: plugin.name for section, plugin in plugins.items()})
    parts.stop = stop
    method = plugins["controller"].target
    parts.task = _make("task", plugins["task"], parts)
    _make_space(resolved, parts)
    parts.trains_weights = _trains(plugins["controller"], parts.space)
    parts.relaxes = _relaxes(plugins["controller"])
    _refuse_lacking(resolved, parts)
    if "device" in plugins:
        parts.device = _make("device", plugins["device"], parts)
    for section, plugin in plugins.items():
        if section.startswith("recipe."):
            name = section.removeprefix("recipe.")
            parts.stage_plugins[name], parts.stages[name] = plugin, _stage(section, plugin, parts)
    check_spaces(parts.stages, parts.space)
    if not measuring:
        check_choices(parts.bindings, parts.stages_for)
    for hook in (parts.task, parts.space):
        if offers(hook, ChecksParts):
            hook.check(parts)
    named = {section: plugin for section, plugin in plugins.items() if section.startswith("measures.")}
    parts.measures = Measures({s.partition(".")[2]: _measure(s, plugin, parts) for s, plugin in named.items()})
    for section in _EVALUATORS:
        if section in plugins:
            parts.evaluators[section.rpartition(".")[2]] = _make(section, plugins[section], parts)
    if named:
        parts.measures.checked(parts.evaluators["final"].metrics, parts.names["evaluator.final"])
    parts.decode = _decoder(parts.space)
    if measuring and not (offers(method, WrapsEvaluators) and method.wraps_evaluators):
        return parts
    parts.controller = _make("controller", plugins["controller"], parts)
    if measuring:
        return parts
    for hook in (parts.task, parts.space):
        if not parts.baselines and offers(hook, HasBaselines):
            parts.baselines = list(hook.baselines(parts))
        if parts.export is None and offers(hook, Exports):
            parts.export = hook.exporter(parts)
        if parts.device is not None and offers(hook, ExportsBaselines):
            parts.export_baseline = hook.baseline_exporter(parts)
    return parts


def _trains(controller: Plugin, space: ChoiceSpace) -> bool:
    """Whether a controller trains weights, as configured, for candidates to inherit."""
    method = controller.target
    if offers(method, TrainsAsConfigured):
        return method.trains_weights(controller.config, space)
    return offers(method, TrainsInPrepare) and method.trains


def _relaxes(controller: Plugin) -> bool:
    """Whether a controller needs a loss to choose architectures by, as configured."""
    method = controller.target
    needed = method.needs(controller.config) if offers(method, NeedsCapabilities) else ()
    return any(HasSearchLoss in capability.__mro__ for capability in needed)


def make_task(resolved: Resolved, folder: Path, say: Callable[[str], None] = print) -> object:
    """The task of a configuration alone, for what needs its data and no search.

    Args:
        resolved: The checked configuration.
        folder: Where a search would run; nothing is written there.
        say: Shows a sentence to the user.

    Raises:
        RankitectError: It cannot be made from what the user gave.
    """
    names = {section: plugin.name for section, plugin in resolved.plugins.items()}
    return _make("task", resolved.plugins["task"], Parts(resolved.config, folder, say, names))


def architecture_from(path: Path, parts: Parts, called: str) -> Any:
    """The architecture of a file, checked against the space.

    Args:
        path: The file, such as a candidate's architecture.json.
        parts: Of the configuration; its space and its decoder count.
        called: The key that named the file, for messages.

    Raises:
        ConfigError: The file cannot be read.
        RankitectError: It holds no architecture, or one that is not of the space.
    """
    from rankitect.documents import read_text
    from rankitect.space.choice_space import ChoiceSpace

    assert parts.decode is not None
    space: object = parts.space  # of a user's own kind, perhaps
    text = read_text(path)
    try:
        architecture = parts.decode(text)
        return space.validate(architecture) if isinstance(space, ChoiceSpace) else architecture
    except RankitectError as error:
        raise type(error)(f"{called}={short(str(path), 120)}: {error}") from error


def _refuse_lacking(resolved: Resolved, parts: Parts) -> None:
    """Refuse a task or space that lacks what an evaluator, the controller or the constraints need, before anything is
    trained.

    Raises:
        ConfigError: It does.
    """
    for section in ("controller", *_EVALUATORS):
        plugin = resolved.plugins.get(section)
        if plugin is not None and offers(plugin.target, NeedsCapabilities):
            for capability in plugin.target.needs(plugin.config):
                parts.require(capability, section)
    refuse_settings(resolved.plugins["controller"], parts.task, parts.space, parts.names["space"])
    if parts.config.constraints:
        require(
            parts.task, BoundsCosts, f"constraints ({', '.join(parts.config.constraints)})",
            called=parts.names.get("task", ""), instead="Leave them out: constraints=null.",
        )  # fmt: skip


def _make_space(resolved: Resolved, parts: Parts) -> None:
    """The space with the choices of the configuration, and the settings that these decide.

    Raises:
        ConfigError: A choice is unusable or decides nothing, or a setting is bound to one that there is not.
    """
    from rankitect.space.choice_space import ChoiceSpace

    space = parts.space = _make("space", resolved.plugins["space"], parts)
    configs = {section: plugin.config for section, plugin in resolved.plugins.items()}
    if not isinstance(space, ChoiceSpace):
        if resolved.config.choices or resolved.bindings.sections:
            raise ConfigError(f"choices: space={parts.names['space']} is no space of choices that could be extended.")
        return
    if resolved.config.choices:
        declared = declared_choices(parts.space.name, resolved.config.choices)
        usual = resolved.bindings.defaults(declared.choices, configs)
        try:
            parts.space = parts.space.with_settings(declared, usual)
        except SpaceError as error:
            raise ConfigError(f"choices: {error}") from None
    read = parts.task.reads(parts.space) if offers(parts.task, ReadsChoices) else ()
    parts.bindings = resolved.bindings.within(parts.space, configs, read)


def _stage(section: str, plugin: Plugin, parts: Parts) -> Stage:
    """A stage of the recipe, once it has nothing to say against its settings, the task and the data."""
    try:
        stage: Stage = _make(section, plugin, parts)
        stage.check()
    except RankitectError as error:
        raise type(error)(f"{section}: {error}") from error
    return stage


def _measure(section: str, plugin: Plugin, parts: Parts) -> Measure:
    """A measure, once it has read what it asks."""
    try:
        measure: Measure = own_measure(plugin, parts) or _make(section, plugin, parts)
    except LacksCapability:  # names the measure itself
        raise
    except RankitectError as error:
        raise type(error)(f"{section}: {error}") from error
    return measure


def _make(section: str, plugin: Plugin, parts: Parts) -> Any:
    """A part, which is then of the kind that its section asks for.

    Raises:
        ConfigError: It is of another kind.
    """
    if offers(plugin.target, FromConfig):
        part = plugin.target.from_config(plugin.config, parts)
    elif inspect.isfunction(plugin.target):
        part = plugin.target(**{name: getattr(plugin.config, name) for name in type(plugin.config).model_fields})
    else:
        part = plugin.target(plugin.config)
    kind = section.partition(".")[0]
    if kind in _ROLES and (missing := missing_members(part, _ROLES[kind])):
        raise ConfigError(
            f"{section}.target: {plugin.target.__qualname__} makes no {_ROLES[kind].__name__.lower()}: it has no "
            f"{', '.join(missing)}."
        )
    return part


def _decoder(space: Any) -> Callable[[str], Any]:
    """The space's own `decode`, for spaces of a kind of their own; else that of spaces of choices."""
    from rankitect.space.architecture import Architecture
    from rankitect.space.choice_space import ChoiceSpace

    if not isinstance(space, ChoiceSpace) and offers(space, DecodesArchitectures):
        return space.decode
    return Architecture.from_json
