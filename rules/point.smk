# FOCUS00, PSFLUX00, PSF01, PSF02: star lock (lock) and shapes of spots (basic) per CCD; focus, brightness
# and growth (meta) of the block.


use rule check as point_lock with:
    output:
        "<results>/{test}/ccd{ccd}/lock/lock.json",
    log:
        "<logs>/{test}_ccd{ccd}_lock.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_lock.tsv"
    wildcard_constraints:
        test=P.pattern("point", "lock"),
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "lock", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "lock", "runtime_min"),
    params:
        step="point",
        subtask="lock",
        job=lambda wc: P.job(wc.test, "lock", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "lock", wc.ccd),


use rule check as point_basic with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "basic", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/basic/basic.json",
    log:
        "<logs>/{test}_ccd{ccd}_basic.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_basic.tsv"
    wildcard_constraints:
        test=P.pattern("point", "basic"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "basic", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "basic", "runtime_min"),
    params:
        step="point",
        subtask="basic",
        job=lambda wc: P.job(wc.test, "basic", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "basic", wc.ccd),


use rule hk as point_meta with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "meta", None),
    output:
        "<results>/{test}/block/meta/meta.json",
    log:
        "<logs>/{test}_meta.log",
    benchmark:
        "<benchmarks>/{test}_meta.tsv"
    wildcard_constraints:
        test=P.pattern("point", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="point",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta"),
        attempt=lambda wc: P.attempt(wc.test, "meta"),


use rule check as point_bayes with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "bayes", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/bayes/bayes.json",
    log:
        "<logs>/{test}_ccd{ccd}_bayes.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_bayes.tsv"
    wildcard_constraints:
        test=P.pattern("point", "bayes"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "bayes", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "bayes", "runtime_min"),
    params:
        step="point",
        subtask="bayes",
        job=lambda wc: P.job(wc.test, "bayes", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "bayes", wc.ccd),


include: "crosstalk.smk"
