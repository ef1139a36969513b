/*-------------------------------------------------------------------------
 *
 * call.c
 *		Making the call that callback.c has prepared.
 *
 * A worker makes it through a portal at the transaction's top level, with the
 * sequence of steps that the server takes for a client's prepared statement:
 * so a procedure may end transactions, and code that looks whether it runs at
 * top level finds that it does.  taskshed.execute is not called at all: its
 * command is run in its place, VACUUM and CREATE INDEX CONCURRENTLY included.
 *
 * A session that tries a task makes the call through SPI, within its own
 * transaction.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "taskshed.h"

/* Keeps the first value of a result and drops the rest. */
typedef struct CallReceiver
{
	DestReceiver pub;
	MemoryContext context;
	bool		done;
	char	   *result;
} CallReceiver;

static void
call_receiver_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static bool
call_receiver_receive(TupleTableSlot *slot, DestReceiver *self)
{
	CallReceiver *receiver = (CallReceiver *) self;
	Oid			output;
	bool		is_varlena;
	Datum		value;
	bool		isnull;

	if (receiver->done || slot->tts_tupleDescriptor->natts == 0)
		return true;
	receiver->done = true;
	value = slot_getattr(slot, 1, &isnull);
	if (!isnull && TupleDescAttr(slot->tts_tupleDescriptor, 0)->atttypid != VOIDOID)
	{
		MemoryContext old = MemoryContextSwitchTo(receiver->context);

		getTypeOutputInfo(TupleDescAttr(slot->tts_tupleDescriptor, 0)->atttypid,
						  &output, &is_varlena);
		receiver->result = OidOutputFunctionCall(output, value);
		MemoryContextSwitchTo(old);
	}
	return true;
}

static void
call_receiver_shutdown(DestReceiver *self)
{
}

static DestReceiver *
call_receiver(CallReceiver *receiver)
{
	memset(receiver, 0, sizeof(*receiver));
	receiver->pub.receiveSlot = call_receiver_receive;
	receiver->pub.rStartup = call_receiver_startup;
	receiver->pub.rShutdown = call_receiver_shutdown;
	receiver->pub.rDestroy = call_receiver_shutdown;
	receiver->pub.mydest = DestNone;
	receiver->context = CurrentMemoryContext;
	return &receiver->pub;
}

/* The one command of a call of taskshed.execute, parsed: 42601 if it is none. */
static RawStmt *
call_parse_command(const char *command)
{
	List	   *statements;
	RawStmt    *statement;
	ErrorContextCallback context;

	context.callback = callback_position_context;
	context.arg = unconstify(char *, command);
	context.previous = error_context_stack;
	error_context_stack = &context;
	statements = pg_parse_query(command);
	error_context_stack = context.previous;

	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("command must not be empty")));
	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("taskshed.execute needs one SQL command, not %d",
						list_length(statements)),
				 errhint("Several commands can be put into a DO block or a procedure.")));
	statement = linitial_node(RawStmt, statements);
	if (IsA(statement->stmt, CopyStmt) && castNode(CopyStmt, statement->stmt)->filename == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot COPY to/from client")));
	if (IsA(statement->stmt, TransactionStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("taskshed.execute cannot run %s",
						GetCommandTagName(CreateCommandTag(statement->stmt)))));
	return statement;
}

/* The command that a call of taskshed.execute is to run. */
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

/* What can be said of the values before the call: a command must be one. */
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
	(void) call_parse_command(call_command(params));
	error_context_stack = context.previous;
}

/*
 * Runs one command at top level, as a client's would be.  All it needs must
 * live on when it ends transactions, so it is kept where the caller is.
 */
static char *
call_execute_command(const char *command)
{
	RawStmt    *statement = call_parse_command(command);
	CommandTag	tag = CreateCommandTag(statement->stmt);
	Portal		portal;
	List	   *plans;
	QueryCompletion qc;
	CallReceiver receiver;
	bool		snapshot = analyze_requires_snapshot(statement);

	if (snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, command, NULL, 0, NULL),
							command, CURSOR_OPT_PARALLEL_OK, NULL);
	if (snapshot)
		PopActiveSnapshot();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, command, tag, plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	(void) compat_portal_run(portal, call_receiver(&receiver), &qc);
	PortalDrop(portal, false);
	return receiver.result;
}

/*
 * Calls the callback at the top level of the worker's transaction.  Returns
 * the first column of the first row of its result as text, in the current
 * memory context, or NULL if there is none.  If it may commit, no snapshot is active, and callback,
 * params and the current memory context outlive the transaction.
 */
char *
call_at_top_level(Callback *callback, ParamListInfo params)
{
	Portal		portal;
	CachedPlan *plan;
	QueryCompletion qc;
	CallReceiver receiver;

	if (callback->kind == CALLBACK_EXECUTE)
	{
		callback_check_privilege(callback, GetUserId());
		return call_execute_command(call_command(params));
	}

	/* planning makes the call, so a plan that is kept would not */
	if (callback->is_constant)
	{
		char	   *result;

		callback_hold(callback);
		result = call_execute_command(callback->query);
		callback_release(callback);
		return result;
	}
	callback_hold(callback);	/* until the run ends, if there is an error */
	portal = CreatePortal("", true, true);
	portal->visible = false;
	plan = GetCachedPlan(callback->plan, params, NULL, NULL);
	PortalDefineQuery(portal, NULL, callback->query, callback->plan->commandTag,
					  plan->stmt_list, plan);
	PortalStart(portal, params, 0, InvalidSnapshot);
	(void) compat_portal_run(portal, call_receiver(&receiver), &qc);
	PortalDrop(portal, false);
	callback_release(callback);
	return receiver.result;
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
		(void) call_parse_command(command);
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
 * Calls the callback within the caller's own transaction, which it cannot
 * end, and returns the first column of the first row of its result as text,
 * NULL if there is none.
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
