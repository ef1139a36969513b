/*-------------------------------------------------------------------------
 *
 * call.c
 *		Making the call that callback.c has prepared.
 *
 * A worker makes it through a portal at the transaction's top level, with the
 * sequence of steps that the server takes for a client's prepared statement:
 * so a procedure may end transactions, and code that looks whether it runs at
 * top level finds that it does.  taskshed.execute is not called at all: its
 * command is run in its place (execute.c), VACUUM and CREATE INDEX
 * CONCURRENTLY included.
 *
 * A session that tries a task makes the call through SPI, within its own
 * transaction.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"

#include "callback/callback.h"

/* Return the command that a call of taskshed.execute is to run. */
static char *
call_command(ParamListInfo params)
{
	if (params == NULL || params->params[0].isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("command must not be null")));
	return TextDatumGetCString(params->params[0].value);
}

static void
call_command_context(void *arg)
{
	errcontext("argument \"command\" (text) of callback %s", (char *) arg);
}

/* Check what can be said of the values before the call: a command must be one. */
void
call_check_values(const Callback *callback, ParamListInfo params)
{
	ErrorContextCallback context;

	if (callback->kind != CALLBACK_EXECUTE)
		return;
	context.callback = call_command_context;
	context.arg = callback->signature;
	context.previous = error_context_stack;
	error_context_stack = &context;
	(void) execute_parse(call_command(params));
	error_context_stack = context.previous;
}

/*
 * Call the callback at the top level of the worker's transaction.  Return the
 * first column of the first row of its result as text, in the current memory
 * context, or NULL if there is none.  If it may commit, no snapshot is active,
 * and callback, params and the current memory context outlive the transaction.
 */
char *
call_at_top_level(Callback *callback, ParamListInfo params)
{
	Portal		portal;
	CachedPlan *plan;
	char	   *result;
	bool		logged;

	if (callback->kind == CALLBACK_EXECUTE)
	{
		char	   *command = call_command(params);

		callback_check_privilege(callback, GetUserId());
		pgstat_report_activity(STATE_RUNNING, command);
		return execute_message(command);
	}

	callback_hold(callback);	/* until the run ends, if there is an error */

	/* planning makes the call, so a plan that is kept would not */
	if (callback->is_constant)
		result = execute_message(callback->query);
	else
	{
		logged = execute_log_statement(callback->query, NIL);
		portal = CreatePortal("", true, true);
		portal->visible = false;
		plan = GetCachedPlan(callback->plan, params, NULL, NULL);
		PortalDefineQuery(portal, NULL, callback->query, callback->plan->commandTag,
						  plan->stmt_list, plan);
		PortalStart(portal, params, 0, InvalidSnapshot);
		result = execute_portal(portal, CurrentMemoryContext);
		execute_log_duration(callback->query, logged);
	}
	callback_release(callback);
	return result;
}

/* Refuse what can only be done at top level: the transaction is the caller's. */
static void
call_refuse_transactions(const char *command)
{
	List	   *statements = execute_parse(command);
	ListCell   *cell;

	foreach(cell, statements)
	{
		Node	   *statement = lfirst_node(RawStmt, cell)->stmt;

		if (IsA(statement, TransactionStmt))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot try a command with %s in it",
							GetCommandTagName(CreateCommandTag(statement))),
					 errdetail("It would be part of the caller's transaction.")));
	}
}

static char *
call_through_spi(Callback *callback, ParamListInfo params)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *result = NULL;
	int			rc;

	SPI_connect();
	if (callback->kind == CALLBACK_EXECUTE)
	{
		char	   *command = call_command(params);

		callback_check_privilege(callback, GetUserId());
		call_refuse_transactions(command);
		rc = SPI_execute(command, false, 0);
	}
	else if (params != NULL)
	{
		SPIExecuteOptions options = {.params = params};

		rc = SPI_execute_extended(callback->query, &options);
	}
	else
		rc = SPI_execute(callback->query, false, 0);
	if (rc < 0)
		elog(ERROR, "could not execute a callback: %s", SPI_result_code_string(rc));
	if (SPI_processed > 0 && SPI_tuptable != NULL && SPI_tuptable->tupdesc->natts > 0)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		result = value != NULL ? MemoryContextStrdup(caller, value) : NULL;
	}
	SPI_finish();
	return result;
}

/*
 * Call the callback within the caller's own transaction, which it cannot end,
 * and return the first column of the first row of its result as text, NULL if
 * there is none.
 */
char *
call_here(Callback *callback, ParamListInfo params)
{
	char	   *volatile result = NULL;

	callback_hold(callback);
	PG_TRY();
	{
		result = call_through_spi(callback, params);
	}
	PG_FINALLY();
	{
		callback_release(callback);
	}
	PG_END_TRY();
	return result;
}
