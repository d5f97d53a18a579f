# calcamp: from raw FITS to reports, one session per run.
#
#   snakemake -n  --configfile config/sessions/D11.yaml      preview, complete before any data arrive
#   snakemake -c4 --configfile config/sessions/D11.yaml      run; add --config mode=wait to wait for the data
#
# The meaning of the session is in `P` (calcamp.campaign.plan); rule files only build names.
import gc
import shlex
import sys
import threading

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from calcamp.campaign import plan
from calcamp.data import alive

min_version("9.20")
# What Snakemake has loaded stays to the end: not looked at again by the collector, now or when the process ends.
gc.freeze()

try:
    P = plan.load(
        workflow.config_settings.configfiles, dict(workflow.config_settings.config)
    )
except Exception as error:
    if not getattr(error, "is_input_error", False):
        raise
    raise WorkflowError(str(error)) from None

PY = f"{shlex.quote(sys.executable)} -m calcamp.steps"
PLANS = str(P.plan_path("").parent)


pathvars:
    results=str(P.results.root),
    logs=str(P.results.root / "logs"),
    benchmarks=str(P.results.root / "benchmarks"),


wildcard_constraints:
    test=P.pattern(),
    ccd="[123]",


onstart:
    try:
        alive.refuse_second(
            P.results.root / "config" / "run.json", P.session.session
        )
        P.write_run(alive.me())
    except Exception as error:
        if not getattr(error, "is_input_error", False):
            raise
        raise WorkflowError(str(error)) from None


onsuccess:
    P.end_run("done")
    # Nothing is left to do: Snakemake's next look at its queue would hold up the end by a second.
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


onerror:
    P.end_run("errors")
    shell("{PY}.summary --results {P.results.root:q} --ended-with-errors || true")


rule all:
    default_target: True
    input:
        "<results>/summary.json",
        f"<results>/{P.results.root.name}_report.html",
        expand("<results>/{test}/.accepted", test=P.tests),
        # Named here too, what was deleted is made again though all that came after it is there.
        expand("<results>/{test}/verdict.json", test=P.tests),
        expand("<results>/{test}/{test}_report.pdf", test=P.tests),
        expand("<results>/{test}/{test}_report.html", test=P.tests),


include: "rules/acquire.smk"
include: "rules/check.smk"
include: "rules/prep.smk"
include: "rules/report.smk"


# Only the families of the session: each job on a cluster reads all this again.
for _family in P.families():

    include: f"rules/{_family}.smk"
