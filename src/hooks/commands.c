/*-------------------------------------------------------------------------
 *
 * commands.c
 *		What the server's commands mean for tasks: DROP OWNED and REASSIGN OWNED
 *		take them along, ALTER EXTENSION has our processes look again, and others.
 *
 * To the server a task is a row like others, owned by nobody.  To those who
 * clear up after a role it is one of the role's belongings, so the two
 * commands that deal with these in one database deal with tasks too.
 *
 * Other commands are passed on to whom they concern: those that drop or alter the
 * extension (drop_extension.c), must have a database alone (database_hold.c), make
 * one (copies.c), change roles (changed_roles.c) or settings (changed_settings.c),
 * change our tables, of which schedulers keep what they have read, or end a prepared
 * transaction (end_prepared.c).
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/user.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "hooks/hooks.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

/*
 * Do our part of DROP OWNED and REASSIGN OWNED, if the extension is (still) there.
 * The server has done its own, and with it checked the privileges.  new_owner is
 * invalid for DROP OWNED.
 */
static void
commands_owned(List *owners, Oid new_owner)
{
	Store	   *store;
	ListCell   *lc;

	CommandCounterIncrement();
	store = store_try_open(RowExclusiveLock);
	if (store == NULL)
	{
		/* they are left with their tasks, which is better said */
		if (store_state() != STORE_ABSENT)
			store_report(WARNING, store_state());
		return;
	}
	foreach(lc, owners)
	{
		if (OidIsValid(new_owner))
			owner_reassign_owned(store, lfirst_oid(lc), new_owner);
		else
			owner_drop_owned(store, lfirst_oid(lc));
	}
	store_close(store, NoLock);
}

/*
 * Return whether a table of ours is altered.  pg_restore --disable-triggers does that
 * when it is done, and nothing else tells of the rows that it brought.
 */
static bool
commands_alters_table(const Node *statement)
{
	Oid			relid;

	if (!IsA(statement, AlterTableStmt) ||
		((const AlterTableStmt *) statement)->objtype != OBJECT_TABLE)
		return false;
	relid = RangeVarGetRelid(((const AlterTableStmt *) statement)->relation, NoLock, true);
	return OidIsValid(relid) && get_rel_namespace(relid) == store_schema();
}

/* Execute a command, and see to what it means for us.  As a ProcessUtility_hook. */
static void
commands_process(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				 ProcessUtilityContext context, ParamListInfo params,
				 QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	UtilityCommand command = {
		.next = prev_process_utility ? prev_process_utility : standard_ProcessUtility,
		.pstmt = pstmt,
		.query_string = queryString,
		.read_only_tree = readOnlyTree,
		.context = context,
		.params = params,
		.query_env = queryEnv,
		.dest = dest,
		.qc = qc
	};
	Node	   *statement = pstmt->utilityStmt;
	bool		alters_extension = drop_extension_is_alter(statement);
	bool		owned = false;
	List	   *owners = NIL;
	Oid			new_owner = InvalidOid;

	/* before an event trigger, which may have other ideas of these roles */
	if (IsA(statement, DropOwnedStmt))
	{
		owned = true;
		owners = roleSpecsToIds(((DropOwnedStmt *) statement)->roles);
	}
	else if (IsA(statement, ReassignOwnedStmt))
	{
		owned = true;
		owners = roleSpecsToIds(((ReassignOwnedStmt *) statement)->roles);
		new_owner = get_rolespec_oid(((ReassignOwnedStmt *) statement)->newrole, false);
	}

	/* it is prepared when the statement is over */
	if (IsA(statement, TransactionStmt) &&
		((const TransactionStmt *) statement)->kind == TRANS_STMT_PREPARE)
		prepared_set_name(((const TransactionStmt *) statement)->gid);

	changed_roles_note(statement);
	copies_check_statement(statement);
	if (ts_shared != NULL)
		database_hold_for_statement(statement);

	/* execute it */
	if (ts_shared != NULL && end_prepared_is(statement))
		end_prepared_execute(&command);
	else if (drop_extension_is_drop(statement) || (alters_extension && superuser()))
		drop_extension_execute(&command);
	else
		utility_command_pass_on(&command, false);

	/* see to what has changed by it */
	if (IsA(statement, ConstraintsSetStmt))
		batch_must_end = true;
	if (owned)
		commands_owned(owners, new_owner);
	if (alters_extension)
		store_extension_changed();
	if (ts_shared != NULL)
	{
		changed_settings_note(statement);
		if (commands_alters_table(statement) || alters_extension)
			notes_reread();
	}
}

/* Set the hook: once, when the library is preloaded. */
void
commands_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = commands_process;
}
