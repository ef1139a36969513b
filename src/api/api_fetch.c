/*-------------------------------------------------------------------------
 *
 * api_fetch.c
 *		fetch_task and fetch_tasks: rows of the view tasks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "api/api.h"

/* The columns of the view tasks, which fetch_task and fetch_tasks return. */
#define TASK_COLUMNS \
	"owner, task_id, group_id, callback, kwargs, run_type, run_at, every, schedule, " \
	"timezone, until, max_runs, catch_up, start_within, timeout, max_attempts, " \
	"retry_delay, retry_backoff, retry_max_delay, history, state, paused_at, attempt, " \
	"running_since, worker_pid, last_run_at, last_status, last_sqlstate, last_error, " \
	"run_count, failures_in_row, created_at"

#define FETCH_QUERY(condition) \
	"SELECT " TASK_COLUMNS " FROM taskshed.task_details " \
	"WHERE owner_oid OPERATOR(pg_catalog.=) $1 " condition \
	" ORDER BY run_at, task_id COLLATE pg_catalog.\"C\""

typedef enum FetchQuery
{
	FETCH_BY_IDS,
	FETCH_BY_GROUP,
	FETCH_ALL_OWNED,
	FETCH_NQUERIES
} FetchQuery;

static const char *const fetch_queries[FETCH_NQUERIES] = {
	[FETCH_BY_IDS] = FETCH_QUERY("AND task_id OPERATOR(pg_catalog.=) ANY ($2)"),
	[FETCH_BY_GROUP] = FETCH_QUERY("AND group_id OPERATOR(pg_catalog.=) $2"),
	[FETCH_ALL_OWNED] = FETCH_QUERY("")
};

/*
 * Runs one of the queries as the caller, who sees what the view lets it see.
 * The result is in SPI_tuptable; the caller is connected to SPI.
 */
static void
fetch_execute(FetchQuery which, Oid owner, Datum selector)
{
	static SPIPlanPtr plans[FETCH_NQUERIES];
	Datum		values[2] = {ObjectIdGetDatum(owner), selector};

	if (plans[which] == NULL)
	{
		Oid			types[2] = {OIDOID, which == FETCH_BY_IDS ? TEXTARRAYOID : TEXTOID};
		SPIPlanPtr	plan = SPI_prepare(fetch_queries[which],
									   which == FETCH_ALL_OWNED ? 1 : 2, types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare a query: %s", SPI_result_code_string(SPI_result));
		plans[which] = plan;
	}

	/* not read-only: see what this statement has done before */
	CommandCounterIncrement();
	if (SPI_execute_plan(plans[which], values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute a query: %s", SPI_result_code_string(SPI_result));
}

PG_FUNCTION_INFO_V1(ts_fetch_tasks);
Datum
ts_fetch_tasks(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			owner;

	ts_require_preload();
	store_require_version();
	if (!PG_ARGISNULL(0) || !PG_ARGISNULL(1))
		check_selector(PG_ARGISNULL(0), PG_ARGISNULL(1));
	owner = check_owner(PG_ARGISNULL(2) ? NULL : NameStr(*PG_GETARG_NAME(2)));

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	if (!PG_ARGISNULL(0))
		fetch_execute(FETCH_BY_IDS, owner, PG_GETARG_DATUM(0));
	else if (!PG_ARGISNULL(1))
		fetch_execute(FETCH_BY_GROUP, owner, PG_GETARG_DATUM(1));
	else
		fetch_execute(FETCH_ALL_OWNED, owner, (Datum) 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(ts_fetch_task);
Datum
ts_fetch_task(PG_FUNCTION_ARGS)
{
	Oid			owner;
	ArrayType  *ids;
	TupleDesc	desc;
	Datum		result = (Datum) 0;
	bool		found;

	ts_require_preload();
	store_require_version();
	owner = check_owner(PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1)));
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	ids = construct_array(&PG_GETARG_DATUM(0), 1, TEXTOID, -1, false, TYPALIGN_INT);

	SPI_connect();
	fetch_execute(FETCH_BY_IDS, owner, PointerGetDatum(ids));
	found = SPI_processed > 0;
	if (found)
		result = PointerGetDatum(SPI_returntuple(SPI_tuptable->vals[0], desc));
	SPI_finish();
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}
