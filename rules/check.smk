# Checks of the data as they are: house-keeping of the test, raw-image statistics per CCD.
#
# `check` is also the pattern of every sub-task per CCD, `hk` of every sub-task of the whole block: a
# family's rule file takes them over with `use rule check as ... with:`.


rule check:
    input:
        manifest="<results>/{test}/manifest.json",
    output:
        "<results>/{test}/ccd{ccd}/check/check.json",
    log:
        "<logs>/{test}_ccd{ccd}_check.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_check.tsv"
    wildcard_constraints:
        test=P.pattern(),
    priority: lambda wc: 5000 + P.priority(wc.test)
    group:
        "ccd"
    threads: 1
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "check", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "check", "runtime_min"),
    params:
        step="check",
        subtask="check",
        job=lambda wc: P.job(wc.test, "check", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "check", wc.ccd),
    shell:
        "{PY}.{params.step} {params.subtask} --manifest {input.manifest:q} --ccd {wildcards.ccd}"
        ' --options {params.job:q} --attempt {params.attempt:q} --into "$(dirname {output:q})" > {log:q} 2>&1'
        " || {PY}.crashed --status $? --manifest {input.manifest:q} --ccd {wildcards.ccd}"
        ' --attempt {params.attempt:q} --into "$(dirname {output:q})" --log {log:q}'


rule hk:
    input:
        manifest="<results>/{test}/manifest.json",
    output:
        "<results>/{test}/block/hk/hk.json",
    log:
        "<logs>/{test}_hk.log",
    benchmark:
        "<benchmarks>/{test}_hk.tsv"
    wildcard_constraints:
        test=P.pattern(),
    # Only the verdict waits for it: the long sub-tasks start first.
    priority: lambda wc: P.priority(wc.test) - 1
    threads: 1
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "hk", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "hk", "runtime_min"),
    params:
        step="check",
        subtask="hk",
        job=lambda wc: P.job(wc.test, "hk"),
        attempt=lambda wc: P.attempt(wc.test, "hk"),
    shell:
        "{PY}.{params.step} {params.subtask} --manifest {input.manifest:q}"
        ' --options {params.job:q} --attempt {params.attempt:q} --into "$(dirname {output:q})" > {log:q} 2>&1'
        " || {PY}.crashed --status $? --manifest {input.manifest:q}"
        ' --attempt {params.attempt:q} --into "$(dirname {output:q})" --log {log:q}'
