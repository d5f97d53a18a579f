# From measurements to a verdict, a report and the summary of the session.


rule judge:
    input:
        manifest="<results>/{test}/manifest.json",
        records=lambda wc: P.records(wc.test),
    output:
        "<results>/{test}/verdict.json",
    log:
        "<logs>/{test}_judge.log",
    benchmark:
        "<benchmarks>/{test}_judge.tsv"
    priority: lambda wc: 2500 + P.priority(wc.test)
    threads: 1
    resources:
        mem_mb=600,
        runtime=5,
    params:
        digest=lambda wc: P.judging_digest(wc.test),
    shell:
        '{PY}.judge --plan {PLANS:q}/{wildcards.test}.json --folder "$(dirname {output[0]:q})" > {log:q} 2>&1'


rule report:
    input:
        "<results>/{test}/verdict.json",
    output:
        pdf="<results>/{test}/{test}_report.pdf",
        html="<results>/{test}/{test}_report.html",
    log:
        "<logs>/{test}_report.log",
    benchmark:
        "<benchmarks>/{test}_report.tsv"
    priority: lambda wc: 2500 + P.priority(wc.test)
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        '{PY}.report --folder "$(dirname {output[0]:q})" > {log:q} 2>&1'


# The last word on a test: the run ends with an error when a sub-task crashed, after its report was made.
rule conclude:
    input:
        "<results>/{test}/verdict.json",
        "<results>/{test}/{test}_report.pdf",
    output:
        "<results>/{test}/.accepted",
    log:
        "<logs>/{test}_conclude.log",
    priority: lambda wc: 2500 + P.priority(wc.test)
    retries: 0
    localrule: True
    threads: 1
    shell:
        "{PY}.conclude --verdict {input[0]:q} --into {output:q} > {log:q} 2>&1"


# It needs the verdicts only, so it is made while the last report is.
rule summary:
    input:
        expand("<results>/{test}/verdict.json", test=P.tests),
    output:
        "<results>/summary.json",
    log:
        "<logs>/summary.log",
    localrule: True
    threads: 1
    shell:
        '{PY}.summary --results "$(dirname {output:q})" > {log:q} 2>&1'


# The whole session in one page, with the figures of all reports.
rule session_report:
    input:
        "<results>/summary.json",
        expand("<results>/{test}/{test}_report.pdf", test=P.tests),
    output:
        f"<results>/{P.results.root.name}_report.html",
    log:
        "<logs>/session_report.log",
    localrule: True
    threads: 1
    shell:
        '{PY}.summary --results "$(dirname {output:q})" --session-report > {log:q} 2>&1'
