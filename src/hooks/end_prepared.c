/*-------------------------------------------------------------------------
 *
 * end_prepared.c
 *		COMMIT PREPARED and ROLLBACK PREPARED.
 *
 * Whoever commits a prepared transaction tells what that has to tell.  How it is
 * known what that is, prepared.c says.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/parsenodes.h"

#include "hooks/hooks.h"

/* Return whether it is a COMMIT PREPARED or ROLLBACK PREPARED. */
bool
end_prepared_is(const Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		(((const TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((const TransactionStmt *) statement)->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

/* Tell what a prepared transaction had to tell, which is committed. */
static void
end_prepared_tell(int kinds, const PreparedHint *hint)
{
	if (kinds & PREPARED_NOTES)
		notes_tell_prepared(hint);
	if (kinds & PREPARED_ROLES)
		changed_roles_tell_all();
	if (kinds & PREPARED_SETTINGS)
		changed_settings_tell_all();
	if (kinds & PREPARED_DATABASES)
		shared_look_around();
}

/*
 * Execute it.  What is to be told is looked up before, when an error is only an
 * error.  An error of the command itself may come when the transaction is
 * committed already, so that everything is told then, in vain perhaps.  Where
 * nothing was found before, the session that prepares it may have been just
 * about to.
 */
void
end_prepared_execute(const UtilityCommand *command)
{
	const TransactionStmt *statement = (const TransactionStmt *) command->pstmt->utilityStmt;
	bool		commits = (statement->kind == TRANS_STMT_COMMIT_PREPARED);
	int			kinds = commits ? prepared_kinds(statement->gid) : 0;
	PreparedHint hint;
	bool		found;

	PG_TRY();
	{
		utility_command_pass_on(command, false);
	}
	PG_CATCH();
	{
		end_prepared_tell(kinds, NULL);
		PG_RE_THROW();
	}
	PG_END_TRY();

	found = prepared_take(statement->gid, &hint);
	if (found && commits)
		kinds |= PREPARED_NOTES;
	end_prepared_tell(kinds, found ? &hint : NULL);
}
