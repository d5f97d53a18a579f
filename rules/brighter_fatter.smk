# BF01, MOT_FF: covariances of pairs of flats (extract_COV) per CCD, coefficients and kernels (extract_BF) for the
# block, correction and its residual (meta) per CCD; converter and hard edge of MOT_FF.


use rule check as brighter_fatter_extract_COV with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "extract_COV", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/extract_COV/extract_COV.json",
    log:
        "<logs>/{test}_ccd{ccd}_extract_COV.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_extract_COV.tsv"
    wildcard_constraints:
        test=P.pattern("brighter_fatter", "extract_COV"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract_COV", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract_COV", "runtime_min"),
    params:
        step="brighter_fatter",
        subtask="extract_COV",
        job=lambda wc: P.job(wc.test, "extract_COV", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "extract_COV", wc.ccd),


use rule check as brighter_fatter_meta with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "meta", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/meta/meta.json",
    log:
        "<logs>/{test}_ccd{ccd}_meta.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_meta.tsv"
    wildcard_constraints:
        test=P.pattern("brighter_fatter", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="brighter_fatter",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "meta", wc.ccd),


use rule check as brighter_fatter_extract_ADC with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "extract_ADC", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/extract_ADC/extract_ADC.json",
    log:
        "<logs>/{test}_ccd{ccd}_extract_ADC.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_extract_ADC.tsv"
    wildcard_constraints:
        test=P.pattern("brighter_fatter", "extract_ADC"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract_ADC", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract_ADC", "runtime_min"),
    params:
        step="brighter_fatter",
        subtask="extract_ADC",
        job=lambda wc: P.job(wc.test, "extract_ADC", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "extract_ADC", wc.ccd),


use rule hk as brighter_fatter_extract_BF with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "extract_BF", None),
    output:
        "<results>/{test}/block/extract_BF/extract_BF.json",
    log:
        "<logs>/{test}_extract_BF.log",
    benchmark:
        "<benchmarks>/{test}_extract_BF.tsv"
    wildcard_constraints:
        test=P.pattern("brighter_fatter", "extract_BF"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract_BF", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract_BF", "runtime_min"),
    params:
        step="brighter_fatter",
        subtask="extract_BF",
        job=lambda wc: P.job(wc.test, "extract_BF"),
        attempt=lambda wc: P.attempt(wc.test, "extract_BF"),


use rule hk as brighter_fatter_extract_HER with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "extract_HER", None),
    output:
        "<results>/{test}/block/extract_HER/extract_HER.json",
    log:
        "<logs>/{test}_extract_HER.log",
    benchmark:
        "<benchmarks>/{test}_extract_HER.tsv"
    wildcard_constraints:
        test=P.pattern("brighter_fatter", "extract_HER"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "extract_HER", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "extract_HER", "runtime_min"),
    params:
        step="brighter_fatter",
        subtask="extract_HER",
        job=lambda wc: P.job(wc.test, "extract_HER"),
        attempt=lambda wc: P.attempt(wc.test, "extract_HER"),
