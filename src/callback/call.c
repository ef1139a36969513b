/*-------------------------------------------------------------------------
 *
 * call.c
 *		Making the call that callback.c has prepared.
 *
 * A worker makes it through a portal at the transaction's top level, with the
 * sequence of steps that the server takes for a client's prepared statement:
 * so a procedure may end transactions, and code that looks whether it runs at
 * top level finds that it does.  Where the plan says that there is nothing to do
 * but to evaluate one expression, as for most functions, that is done without
 * the portal, whose making and dropping costs more than many callbacks.
 * taskshed.execute is not called at all: its command is run in its place
 * (execute.c), VACUUM and CREATE INDEX CONCURRENTLY included.
 *
 * A session that tries a task makes the call through SPI, within its own
 * transaction.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "pgstat.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

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

/* Return whether anybody wants to see what is executed, tasks included. */
static bool
call_is_watched(void)
{
	return ExecutorStart_hook != NULL || ExecutorRun_hook != NULL ||
		ExecutorFinish_hook != NULL || ExecutorEnd_hook != NULL ||
		ExecutorCheckPerms_hook != NULL || log_executor_stats;
}

/* Return the expression that a plan does nothing but evaluate once, NULL if it does more. */
static Expr *
call_expression(const PlannedStmt *statement)
{
	Result	   *plan = (Result *) statement->planTree;
	TargetEntry *target;

	if (statement->commandType != CMD_SELECT ||
		statement->subplans != NIL || statement->rowMarks != NIL || !IsA(plan, Result) ||
		plan->plan.lefttree != NULL || plan->plan.qual != NIL || plan->plan.initPlan != NIL ||
		plan->resconstantqual != NULL || list_length(plan->plan.targetlist) != 1)
		return NULL;
	target = linitial_node(TargetEntry, plan->plan.targetlist);
	return expression_returns_set((Node *) target->expr) ? NULL : target->expr;
}

/*
 * Evaluate an expression as the executor would, and return its value as text, in the
 * current memory context, or NULL.
 */
static char *
call_evaluate(Expr *expression, ParamListInfo params)
{
	ExprContext *context = CreateStandaloneExprContext();
	ExprState  *state;
	MemoryContext caller;
	MemoryContext portal_context = PortalContext;
	char	   *volatile result = NULL;

	PushActiveSnapshot(GetTransactionSnapshot());
	PG_TRY();
	{
		Datum		value;
		bool		isnull;

		/* commands in the callback, ANALYZE for one, have a context in it */
		PortalContext = CurrentMemoryContext;
		context->ecxt_param_list_info = params;
		state = ExecInitExprWithParams(expression, params);
		caller = MemoryContextSwitchTo(context->ecxt_per_tuple_memory);
		value = ExecEvalExpr(state, context, &isnull);
		MemoryContextSwitchTo(caller);
		if (!isnull && exprType((Node *) expression) != VOIDOID)
		{
			Oid			output;
			bool		is_varlena;

			getTypeOutputInfo(exprType((Node *) expression), &output, &is_varlena);
			result = OidOutputFunctionCall(output, value);
		}
	}
	PG_FINALLY();
	{
		PortalContext = portal_context;
	}
	PG_END_TRY();
	PopActiveSnapshot();
	FreeExprContext(context, true);
	return result;
}

/*
 * Make the call of a function without a portal, if it can be.  Return false, with
 * nothing done, if it cannot.
 */
static bool
call_directly(Callback *callback, ParamListInfo params, char **result)
{
	CachedPlan *plan;
	PlannedStmt *statement;
	Expr	   *expression;

	if (callback->kind != CALLBACK_FUNCTION || call_is_watched())
		return false;
	plan = GetCachedPlan(callback->plan, params, CurrentResourceOwner, NULL);
	statement = linitial_node(PlannedStmt, plan->stmt_list);
	expression = call_expression(statement);
	if (expression != NULL)
	{
		pgstat_report_query_id(statement->queryId, false);
		*result = call_evaluate(expression, params);
	}
	ReleaseCachedPlan(plan, CurrentResourceOwner);
	return expression != NULL;
}

/* Make the call of a function or procedure through a portal. */
static char *
call_through_portal(Callback *callback, ParamListInfo params)
{
	Portal		portal = CreatePortal("", true, true);
	CachedPlan *plan;

	portal->visible = false;
	plan = GetCachedPlan(callback->plan, params, NULL, NULL);
	PortalDefineQuery(portal, NULL, callback->query, callback->plan->commandTag,
					  plan->stmt_list, plan);
	PortalStart(portal, params, 0, InvalidSnapshot);
	return execute_portal(portal, CurrentMemoryContext);
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
		if (!call_directly(callback, params, &result))
			result = call_through_portal(callback, params);
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
