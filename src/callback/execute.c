/*-------------------------------------------------------------------------
 *
 * execute.c
 *		Running SQL as the server runs what a client sends.
 *
 * The command of taskshed.execute is taken as one message of a client: all
 * that is in it is one transaction, unless it ends that itself, and what
 * cannot be in a transaction can only be alone.  The server does this with an
 * implicit transaction block, and so do we, in the same steps.
 *
 * There is one difference.  The message's last transaction, if no COMMIT has
 * ended it, is left open: the caller writes the run's outcome into it.  And a
 * block that was begun must be ended: a client's would last as long as its
 * connection, but a run is over with its message.
 *
 * What runs is logged as a client's statement is, if log_statement,
 * log_min_duration_statement and the like ask for that, without parameters.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "callback/callback.h"

/* Keeps the first value of a result and drops the rest. */
typedef struct FirstValueReceiver
{
	DestReceiver pub;
	MemoryContext context;
	bool		done;
	char	   *result;
} FirstValueReceiver;

static void
first_value_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static bool
first_value_receive(TupleTableSlot *slot, DestReceiver *self)
{
	FirstValueReceiver *receiver = (FirstValueReceiver *) self;
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
first_value_shutdown(DestReceiver *self)
{
}

/*
 * Run a portal that has been started to its end, at top level, and drop it.
 * Return the first column of the first row of its result as text, in
 * result_context, or NULL if there is none.
 */
char *
execute_portal(Portal portal, MemoryContext result_context)
{
	FirstValueReceiver receiver;
	QueryCompletion qc;

	memset(&receiver, 0, sizeof(receiver));
	receiver.pub.receiveSlot = first_value_receive;
	receiver.pub.rStartup = first_value_startup;
	receiver.pub.rShutdown = first_value_shutdown;
	receiver.pub.rDestroy = first_value_shutdown;
	receiver.pub.mydest = DestNone;
	receiver.context = result_context;
	(void) compat_portal_run(portal, &receiver.pub, &qc);
	PortalDrop(portal, false);
	return receiver.result;
}

/*
 * Log a statement that is about to run, if log_statement wants that.  Return
 * whether it was logged.  A call of a function or procedure, for which
 * statements is NIL, is of those that only "all" asks for.
 */
bool
execute_log_statement(const char *text, List *statements)
{
	bool		wanted = (log_statement == LOGSTMT_ALL);
	ListCell   *cell;

	if (log_statement == LOGSTMT_NONE)
		return false;
	foreach(cell, statements)
		wanted = wanted || GetCommandLogLevel(lfirst(cell)) <= log_statement;
	if (wanted)
		ereport(LOG,
				(errmsg("statement: %s", text),
				 errhidestmt(true)));
	return wanted;
}

/*
 * Log how long a statement has taken since the start of the run's transaction,
 * and the statement itself unless that was_logged, if log_duration and its
 * siblings want that.
 */
void
execute_log_duration(const char *text, bool was_logged)
{
	char		ms[32];

	switch (check_log_duration(ms, was_logged))
	{
		case 1:
			ereport(LOG,
					(errmsg("duration: %s ms", ms),
					 errhidestmt(true)));
			break;
		case 2:
			ereport(LOG,
					(errmsg("duration: %s ms  statement: %s", ms, text),
					 errhidestmt(true)));
			break;
	}
}

/* Return whether a message begins a transaction block that it does not end. */
static bool
execute_leaves_block_open(List *statements)
{
	bool		open = false;
	ListCell   *cell;

	foreach(cell, statements)
	{
		TransactionStmt *statement = (TransactionStmt *) lfirst_node(RawStmt, cell)->stmt;

		if (!IsA(statement, TransactionStmt))
			continue;
		switch (statement->kind)
		{
			case TRANS_STMT_BEGIN:
			case TRANS_STMT_START:
				open = true;
				break;
			case TRANS_STMT_COMMIT:
			case TRANS_STMT_ROLLBACK:
				open = open && statement->chain;
				break;
			default:
				break;
		}
	}
	return open;
}

/*
 * Parse a message and refuse what no run can do.  There may be no statement in
 * it.  Errors: 42601 for what is no SQL; 0A000 for what needs a client, or
 * somebody who comes back to it; 25001 for a transaction block that is left
 * open.
 */
List *
execute_parse(const char *text)
{
	List	   *statements;
	ListCell   *cell;
	ErrorContextCallback context;

	context.callback = callback_position_context;
	context.arg = unconstify(char *, text);
	context.previous = error_context_stack;
	error_context_stack = &context;
	statements = pg_parse_query(text);
	error_context_stack = context.previous;

	foreach(cell, statements)
	{
		Node	   *statement = lfirst_node(RawStmt, cell)->stmt;

		if (IsA(statement, CopyStmt) && castNode(CopyStmt, statement)->filename == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot COPY to/from client")));
		if (IsA(statement, TransactionStmt) &&
			castNode(TransactionStmt, statement)->kind == TRANS_STMT_PREPARE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("taskshed.execute cannot run %s", "PREPARE TRANSACTION")));
	}
	if (execute_leaves_block_open(statements))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("command leaves a transaction block open"),
				 errhint("End it with COMMIT.")));
	return statements;
}

/*
 * Run one statement of a message at top level.  Return its first value, in
 * result_context; what else is needed is in the current memory context, which
 * outlives the transaction.
 */
static char *
execute_statement(RawStmt *statement, const char *text, MemoryContext result_context)
{
	bool		snapshot = analyze_requires_snapshot(statement);
	List	   *plans;
	Portal		portal;

	if (snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, text, NULL, 0, NULL),
							text, CURSOR_OPT_PARALLEL_OK, NULL);
	if (snapshot)
		PopActiveSnapshot();

	/* a cancel while it was planned */
	CHECK_FOR_INTERRUPTS();
	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, text, CreateCommandTag(statement->stmt), plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	return execute_portal(portal, result_context);
}

/*
 * Run a message.  The caller is in a transaction that is in no block, and is in
 * such a one afterwards, though perhaps another: if the message may end it, no
 * snapshot is active, and the current memory context outlives it.  Return what
 * the last statement returned, as execute_portal does.
 *
 * Nobody's statement_timeout is armed in a worker, but one that the message
 * itself sets is heeded, for each statement behind it.
 */
char *
execute_message(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext statement_context;
	List	   *statements = execute_parse(text);
	bool		several = list_length(statements) > 1;
	bool		logged = execute_log_statement(text, statements);
	char	   *result = NULL;
	ListCell   *cell;

	/* what is not needed any more is not kept while others run */
	statement_context = AllocSetContextCreate(context, "taskshed statement",
											  ALLOCSET_DEFAULT_SIZES);
	foreach(cell, statements)
	{
		RawStmt    *statement = lfirst_node(RawStmt, cell);

		pgstat_report_query_id(0, true);
		if (StatementTimeout > 0)
			enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);

		/* each time: one before may have ended it */
		if (several)
			BeginImplicitTransactionBlock();
		CHECK_FOR_INTERRUPTS();

		MemoryContextSwitchTo(statement_context);
		result = execute_statement(statement, text, context);
		disable_timeout(STATEMENT_TIMEOUT, false);
		if (IsA(statement->stmt, TransactionStmt))
		{
			CommitTransactionCommand();
			StartTransactionCommand();
		}
		else if (lnext(statements, cell) != NULL)
			CommandCounterIncrement();
		MemoryContextSwitchTo(context);
		MemoryContextReset(statement_context);
	}
	if (several)
		EndImplicitTransactionBlock();
	Assert(!IsTransactionBlock());
	execute_log_duration(text, logged);
	return result;
}
